# The image of each service, built from the repository's root:
# docker build --file deploy/docker/service.Dockerfile --build-arg SERVICE=usage-ingest .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/runtime.txt .
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv install --require-hashes --only-binary=:all: -r runtime.txt

FROM dependencies AS packages
COPY requirements/build.txt .
RUN python -m venv --without-pip /opt/build \
    && pip --python /opt/build install --require-hashes --only-binary=:all: -r build.txt
COPY libs/contracts libs/contracts
COPY libs/messaging libs/messaging
COPY libs/database libs/database
COPY libs/service libs/service
COPY libs/broker-admin libs/broker-admin
COPY libs/plans libs/plans
COPY libs/stripe-answers libs/stripe-answers
ARG SERVICE
COPY services/${SERVICE} services/${SERVICE}
RUN pip --python /opt/build wheel --no-deps --no-build-isolation --wheel-dir=wheels \
        ./libs/* "./services/${SERVICE:?}"

FROM ${PYTHON_IMAGE}
# The dependencies first: the images of all services share this layer.
COPY --from=dependencies /opt/venv /opt/venv
ARG SERVICE
RUN --mount=type=bind,from=packages,source=/build/wheels,target=/wheels \
    pip --python /opt/venv install --no-cache-dir --no-deps /wheels/*.whl \
    && ln -s "/opt/venv/bin/${SERVICE}" /usr/local/bin/service
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HTTP_HOST=0.0.0.0 HTTP_PORT=8080
USER 10001:10001
EXPOSE 8080
# What is wrong stands in `docker inspect --format '{{json .State.Health}}' CONTAINER`.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import os, http.client; c = http.client.HTTPConnection('127.0.0.1', os.environ['HTTP_PORT'], timeout=4); c.request('GET', '/readyz'); a = c.getresponse(); print(a.read().decode()); raise SystemExit(a.status != 200)"]
ENTRYPOINT ["service"]
CMD ["serve"]
