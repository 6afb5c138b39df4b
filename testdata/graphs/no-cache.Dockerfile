# option: no-cache=BUILD
FROM alpine:3.20 AS build
RUN a
FROM build AS test
RUN b
