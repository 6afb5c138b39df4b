# option: hostname=box
# option: add-host=db=10.0.0.1
FROM alpine:3.20
USER app:staff
WORKDIR /w
RUN ["echo", "a b"]
RUN echo one && \
    # a comment
    echo "two"
RUN <<EOT
set -e
make
EOT
RUN <<PY
#!/usr/bin/env python3
print(1)
PY
RUN cat <<A && cat <<B
a
A
b
B
SHELL ["/bin/bash", "-eu", "-c"]
RUN echo bash
RUN --network=none --security=insecure --device=vendor.com/gpu=all,required ls
RUN --network=host ls
