FROM stand-in-root:postgres-exporter
LABEL stand-in="Debian's PostgreSQL exporter 0.19 in place of the official image"
USER nobody
EXPOSE 9187
ENTRYPOINT ["prometheus-postgres-exporter"]
