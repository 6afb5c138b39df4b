# escape=`
FROM alpine:3.20
ENV A=value EMPTY=
LABEL plain=$A braces=${A} default=${B:-x} dash=${EMPTY-x} plus=${A:+y} prefix=${A#v} suffix=${A%%l*} replace=${A/a/A}
LABEL single='$A' double="$A" escaped=`$A
WORKDIR /${A}/$A
USER $A
VOLUME /$A
STOPSIGNAL ${NONE:-SIGINT}
RUN echo $A
CMD echo $A
