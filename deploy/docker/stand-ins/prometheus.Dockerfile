FROM stand-in-root:prometheus
LABEL stand-in="Debian's Prometheus 3.5 in place of the official image"
RUN rm -rf /etc/prometheus /var/lib/prometheus \
    && install -d -o nobody -g nogroup /etc/prometheus /prometheus
USER nobody
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["prometheus"]
