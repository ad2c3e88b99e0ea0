FROM stand-in-root:rabbitmq
LABEL stand-in="Debian's RabbitMQ 4.3 in place of the official image"
ENV HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- LANG=C.UTF-8 PATH=/usr/lib/rabbitmq/bin:$PATH
RUN rm -rf /etc/rabbitmq /var/lib/rabbitmq \
    && install -d -o rabbitmq -g rabbitmq -m 777 \
        /etc/rabbitmq /etc/rabbitmq/conf.d /var/lib/rabbitmq /var/log/rabbitmq \
    && printf 'loopback_users.guest = false\nlog.console = true\n' \
        >/etc/rabbitmq/conf.d/10-defaults.conf \
    && echo '[rabbitmq_management,rabbitmq_prometheus].' >/etc/rabbitmq/enabled_plugins
USER rabbitmq
VOLUME /var/lib/rabbitmq
EXPOSE 5672 15672 15692
CMD ["rabbitmq-server"]
