FROM stand-in-root:python
LABEL stand-in="Debian's Python 3.13 in place of the official image"
COPY ca-certificates.crt /usr/local/share/ca-bundle.crt
RUN test ! -s /usr/local/share/ca-bundle.crt \
    || cp /usr/local/share/ca-bundle.crt /etc/ssl/certs/ca-certificates.crt \
    && ln -s /usr/bin/python3 /usr/local/bin/python
CMD ["python"]
