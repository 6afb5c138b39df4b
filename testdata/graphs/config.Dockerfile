# option: label=z=option
# option: label=b=option
FROM scratch
MAINTAINER A B <a@b>
ENV A=1 B="two words" A=2
LABEL a=1 "b c"='d e' b=file
EXPOSE 80 443/TCP 8000-8002/udp 127.0.0.1:9:90
ENV PORTS="1 2"
EXPOSE $PORTS
VOLUME /data /more
VOLUME ["/json"]
USER 1:2
WORKDIR a
WORKDIR b/../c
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=90s --timeout=1.5s --start-period=1h --start-interval=250ms --retries=3 CMD curl -f "x"
CMD ["one", "t\"wo"]
ENTRYPOINT entry point
ONBUILD RUN a && \
    b
ONBUILD COPY <<X /x
body
X
