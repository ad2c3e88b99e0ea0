#!/bin/sh
# The secrets that docker-compose.yml mounts, each in a file of its own: made at random where they
# are missing, kept where they are there.
#
#   deploy/docker/secrets.sh            and the local Stripe, unless another was chosen before
#   deploy/docker/secrets.sh emulator   and the local Stripe (`docker compose --profile demo`)
#   deploy/docker/secrets.sh stripe     and the real Stripe; standard input holds two keys of it, a
#                                       line each: customer-provisioner's, then stripe-reporter's;
#                                       and in two more, if they have webhook endpoints, the
#                                       signing secrets of the same two (an empty line for none)
#
# SECRETS_DIR is where they are (.local/docker/secrets). PostgreSQL and RabbitMQ take their
# passwords when their volumes are empty: `docker compose down --volumes` before the folder goes.
set -eu

cd -- "$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/../.."
directory=${SECRETS_DIR:-.local/docker/secrets}
services="customer-provisioner usage-ingest stripe-reporter"
stripe_users="customer-provisioner stripe-reporter"
emulator=http://stripe-emulator:12111

# write NAME TEXT. The files are readable, because the containers' users are not the caller; the
# folder is not.
write() {
    printf '%s\n' "$2" >"$directory/$1.new"
    chmod 444 "$directory/$1.new"
    mv -f "$directory/$1.new" "$directory/$1"
}

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# secret NAME: prints it, and makes it first if it is not there.
secret() {
    [ -s "$directory/$1" ] || write "$1" "$(random)"
    cat "$directory/$1"
}

choose_stripe() {
    case $1 in
    emulator)
        for service in $stripe_users; do
            write "stripe-secret-key-$service" "sk_test_$(random)"
        done
        write stripe-webhook-secret "whsec_$(random)"
        write stripe-webhook-secret-stripe-reporter "whsec_$(random)"
        write stripe-api-base "$emulator"
        ;;
    stripe)
        webhook_secret=
        reporter_webhook_secret=
        read -r provisioner_key || :
        read -r reporter_key || :
        read -r webhook_secret || :
        read -r reporter_webhook_secret || :
        for key in "$provisioner_key" "$reporter_key"; do
            case $key in
            sk_* | rk_*) ;;
            *)
                echo "secrets: standard input does not hold two keys of Stripe's (sk_... or rk_...), a line" \
                    "each: customer-provisioner's, then stripe-reporter's" >&2
                exit 2
                ;;
            esac
        done
        write stripe-secret-key-customer-provisioner "$provisioner_key"
        write stripe-secret-key-stripe-reporter "$reporter_key"
        # Without a secret there is no endpoint: subscriptions are not followed, or what Stripe
        # rejects later is not heard.
        write stripe-webhook-secret "$webhook_secret"
        write stripe-webhook-secret-stripe-reporter "$reporter_webhook_secret"
        # An empty address is the real Stripe's.
        write stripe-api-base ""
        ;;
    *)
        echo "usage: $0 [emulator|stripe]" >&2
        exit 2
        ;;
    esac
}

mkdir -p "$directory"
chmod 700 "$directory"

admin=$(secret broker-password-admin)
write rabbitmq-admin.conf "default_user = admin
default_pass = $admin
default_user_tags.administrator = true"
write management-url "http://admin:$admin@rabbitmq:15672"
write amqp-url-publisher "amqp://publisher:$(secret broker-password-publisher)@rabbitmq:5672/metering"
secret broker-password-operator >/dev/null
secret database-password-superuser >/dev/null
secret database-password-postgres-exporter >/dev/null
secret grafana-password-admin >/dev/null
for service in $services; do
    database=$(echo "$service" | tr - _)
    broker=$(secret "broker-password-$service")
    owner=$(secret "database-password-$service-owner")
    role=$(secret "database-password-$service")
    write "amqp-url-$service" "amqp://$service:$broker@rabbitmq:5672/metering"
    write "database-url-$service" "postgresql://$database:$role@postgres:5432/$database"
    write "database-url-$service-owner" \
        "postgresql://${database}_owner:$owner@postgres:5432/$database"
done
reader=$(secret database-password-usage-reader)
write database-url-usage-reader "postgresql://usage_reader:$reader@postgres:5432/usage_ingest"
# entry NAME SECRET TYPES: prints a key's entry in API_KEYS, for all sources.
entry() {
    printf '%s:%s:*:%s' "$1" "$(printf %s "$(secret "$2")" | sha256sum | cut -d ' ' -f 1)" "$3"
}
# One key for every source, type and right, and one that says who pays for a user: no key may have
# both. `usage-ingest make-api-key` makes narrower ones.
if ! grep -qs : "$directory/api-keys"; then
    all=$(entry local api-key "*|entitlements.read|usage.read")
    write api-keys "$all,$(entry accounts accounts-key "user.created|user.assigned")"
fi
# Before, both services had one key.
if [ -s "$directory/stripe-secret-key" ]; then
    for service in $stripe_users; do
        write "stripe-secret-key-$service" "$(cat "$directory/stripe-secret-key")"
    done
    rm "$directory/stripe-secret-key"
fi
if [ $# -gt 0 ]; then
    choose_stripe "$1"
elif [ ! -s "$directory/stripe-secret-key-stripe-reporter" ]; then
    choose_stripe emulator
fi

# Secrets that an earlier release has made have none.
for name in stripe-webhook-secret stripe-webhook-secret-stripe-reporter; do
    [ -e "$directory/$name" ] || write "$name" ""
done

if [ -s "$directory/stripe-api-base" ] && grep -q "$emulator" "$directory/stripe-api-base"; then
    echo "secrets: in $directory, for the local Stripe: docker compose --profile demo up --wait" >&2
else
    echo "secrets: in $directory, for the real Stripe: docker compose up --wait" >&2
fi
