# For a CPU; Dockerfile.cuda is for NVIDIA GPUs.
#   docker build -t retinanet_jax .
#   docker run --rm -v "$PWD:/data" retinanet_jax train --data=photos
FROM python:3.11-slim

ARG EXTRAS=fast,hub
COPY . /opt/retinanet_jax
RUN pip install --no-cache-dir -c /opt/retinanet_jax/constraints.txt "/opt/retinanet_jax[${EXTRAS}]" \
    && useradd --create-home --uid 1000 user
USER 1000
# The folder of the host with images; workdirs are below it, in runs/.
WORKDIR /data
ENTRYPOINT ["retinanet-jax"]
CMD ["--help"]
