mkdir -p e k/l
chmod 711 k/l
