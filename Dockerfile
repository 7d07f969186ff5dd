# syntax=docker/dockerfile:1
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Only what the lock names, checked by hash, and as wheels: nothing is compiled, no setup script runs.
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/reconciler \
 && pip --python /opt/reconciler/bin/python install --no-compile --require-hashes --only-binary :all: -r requirements.lock

# The build backend stays in this stage.
COPY requirements-build.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY reconciler reconciler
COPY sql sql
RUN python -m hatchling build -t wheel \
 && pip --python /opt/reconciler/bin/python install --no-compile --no-deps --no-index dist/*.whl \
 && /opt/reconciler/bin/reconciler --version

# Bytecode spares every run more than a second. It holds whatever the files' times are: what builds or copies an image may
# set them anew, and no run could compile again. Most of the Kubernetes client is never imported, and would need 42 MB.
RUN /opt/reconciler/bin/python -m compileall -q --invalidation-mode unchecked-hash \
    -x '/kubernetes/(aio|client/(api|models))/[^_]' /opt/reconciler/lib


FROM python:${PYTHON}-slim
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="reconciler" \
      org.opencontainers.image.description="Keeps PieCed's billing ledger true to the PiecedTenants in the cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Nothing is installed in this image once it is built.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip

COPY --from=build /opt/reconciler /opt/reconciler
# The root file system may be read-only, and no log line may be lost in a buffer when the pod is killed.
ENV PATH=/opt/reconciler/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# By number, so that Kubernetes can check runAsNonRoot without reading the image's passwd.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["reconciler"]
