# Built from the repository's root: docker build --file deploy/docker/stripe-emulator.Dockerfile .
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
COPY libs/stripe-emulator libs/stripe-emulator
RUN pip --python /opt/build wheel --no-deps --no-build-isolation --wheel-dir=wheels ./libs/*

FROM ${PYTHON_IMAGE}
# More than it needs, and yet nothing on disk: the services' images hold the same layer.
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=packages,source=/build/wheels,target=/wheels \
    pip --python /opt/venv install --no-cache-dir --no-deps /wheels/*.whl
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 12111
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import http.client; c = http.client.HTTPConnection('127.0.0.1', 12111, timeout=4); c.request('GET', '/_emulator/health'); a = c.getresponse(); print(a.read().decode()); raise SystemExit(a.status != 200)"]
ENTRYPOINT ["stripe-emulator"]
CMD ["serve", "--host", "0.0.0.0"]
