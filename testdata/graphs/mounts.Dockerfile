# option: build-arg=BUILDKIT_CACHE_MOUNT_NS=ns
# option: context=src=directory
FROM alpine:3.20 AS tools
RUN tools

FROM alpine:3.20
ARG UID=5
WORKDIR /work
RUN --mount=target=here,source=../up ls
RUN --mount=type=bind,from=tools,source=/bin,target=/tools,rw ls
RUN --mount=type=bind,from=other:1,target=/other --mount=from=src,target=/src ls
RUN --mount=type=cache,target=/root/.cache/ --mount=type=cache,id=x,target=rel,sharing=locked,uid=$UID,mode=700 ls
RUN --mount=type=cache,target=/seeded,from=tools,source=/lib,ro ls
RUN --mount=type=tmpfs,target=/tmp,size=64m ls
RUN --mount=type=secret,id=dir/token,required --mount=type=secret,id=b,env=B --mount=type=secret,id=c,env=C,target=/c ls $B
RUN --mount=type=ssh --mount=type=ssh,id=other,target=/agent ls
