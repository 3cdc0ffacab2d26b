# The three images of Charalora: `--target operator`, `preflight` or `trainer`. Docker and buildah build it alike.
# Arguments: BASE (pin it by digest), TORCH (`cuda`; or `cpu`, which takes a CPU wheel of the pinned torch from a folder that both are given
# by `--build-context wheels=FOLDER`).
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates python3 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
 && groupadd --gid 65532 charalora \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin charalora
ENV HOME=/tmp \
    PATH=/opt/charalora/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
# The first process of a container gets no signal that it did not ask for, and inherits every orphan: tini is for both.
ENTRYPOINT ["tini", "--", "charalora"]

# What installs the rest, and stays behind: pip, and an environment without it in which everything is installed.
FROM python AS builder
USER 0:0
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3-venv \
 && python3 -m venv /build \
 && python3 -m venv --without-pip /opt/charalora
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

# Dependencies: a layer that changes with the requirements only.
FROM builder AS operator-dependencies
COPY requirements/operator.txt requirements/
RUN /build/bin/pip --python /opt/charalora/bin/python install --quiet --no-deps --require-hashes -r requirements/operator.txt

FROM builder AS preflight-dependencies
COPY requirements/preflight.txt requirements/
RUN /build/bin/pip --python /opt/charalora/bin/python install --quiet --no-deps --require-hashes -r requirements/preflight.txt

FROM scratch AS wheels

FROM builder AS trainer-dependencies
ARG TORCH=cuda
COPY requirements/trainer.txt requirements/cuda.txt requirements/
RUN --mount=type=bind,from=wheels,target=/wheels \
    if [ "$TORCH" = cpu ]; then sed -i 's/^\(torch==[0-9.]*\)/\1+cpu/' requirements/trainer.txt; : > requirements/cuda.txt; fi \
 && /build/bin/pip --python /opt/charalora/bin/python install --quiet --no-deps --require-hashes --find-links /wheels \
      -r requirements/trainer.txt -r requirements/cuda.txt

# Our code: a small layer of its own. Each image gets the packages that it runs.
FROM builder AS code
COPY requirements/dev.txt requirements/
RUN sed -n '/^\(hatchling\|packaging\|pathspec\|pluggy\|trove-classifiers\)==/,/[^\\]$/p' requirements/dev.txt > requirements/build.txt \
 && /build/bin/pip install --quiet --no-deps --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator/charalora_spec operator/charalora_spec

FROM code AS operator-code
COPY operator/charalora_operator operator/charalora_operator
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/charalora/bin/python install --quiet --no-deps --prefix /code /wheel/*.whl \
 && rm /code/bin/charalora

FROM code AS trainer-code
COPY trainer_image/charalora_trainer trainer_image/charalora_trainer
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/charalora/bin/python install --quiet --no-deps --prefix /code /wheel/*.whl \
 && rm /code/bin/charalora-operator

FROM python AS operator
LABEL org.opencontainers.image.title="charalora/operator" \
      org.opencontainers.image.description="Kubernetes operator that trains a LoRA and a trigger-word embedding for each CharacterLora" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=operator-dependencies /opt/charalora /opt/charalora
COPY --from=operator-code /code /opt/charalora
ENTRYPOINT ["tini", "--", "charalora-operator"]

FROM python AS preflight
LABEL org.opencontainers.image.title="charalora/preflight" \
      org.opencontainers.image.description="Checks a CharacterLora's data set, base model and storage on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=preflight-dependencies /opt/charalora /opt/charalora
COPY --from=trainer-code /code /opt/charalora

FROM python AS trainer
LABEL org.opencontainers.image.title="charalora/trainer" \
      org.opencontainers.image.description="Trains a CharacterLora and writes its files to object storage" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=trainer-dependencies /opt/charalora /opt/charalora
COPY --from=trainer-code /code /opt/charalora
