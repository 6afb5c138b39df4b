# option: context=alpine:3.20=docker-image://other:1
# option: context=replaced=docker-image://rich:1
# option: context=files=directory
# option: target=all
FROM alpine:3.20 AS first
RUN first

FROM nothing:1 AS replaced
RUN never

FROM replaced AS second
RUN second

FROM files AS third
RUN third

FROM scratch AS all
COPY --from=first /1 /
COPY --from=second /2 /
COPY --from=third /3 /
