# For a CPU:  docker build -t retinanet_jax .
# For CUDA:   docker build -t retinanet_jax:cuda --build-arg EXTRAS=cuda,fast,hub .
# JAX's packages contain CUDA; the host has the driver and NVIDIA's container toolkit:
#   docker run --rm --gpus all -v "$PWD:/data" retinanet_jax:cuda train --data=photos
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
