FROM rich:1 AS base
ARG V=1
ENV B=$V
WORKDIR sub
SHELL ["/bin/ash", "-c"]
ONBUILD RUN echo brought
ONBUILD COPY x /x

FROM base AS child
RUN echo $V
CMD run
LABEL b=child a=child

FROM child
RUN echo again
