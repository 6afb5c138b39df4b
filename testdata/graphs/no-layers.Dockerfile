# option: platform=linux/arm/v7
FROM empty:1
ENV X=1
