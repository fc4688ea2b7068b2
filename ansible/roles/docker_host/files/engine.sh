#!/bin/sh
# engine.sh: says by what an engine is installed here, and nothing where none is or Debian's package is there by half.
case $(dpkg-query --show --showformat '${db:Status-Abbrev}' docker.io 2>/dev/null) in
i[!i]*) exit ;;
esac
if systemctl cat docker.service >/dev/null 2>&1; then
    echo "the unit docker.service"
    exit
fi
for program in "$(command -v dockerd)" /usr/bin/dockerd /usr/sbin/dockerd /usr/local/bin/dockerd /usr/local/sbin/dockerd /snap/bin/docker; do
    if [ -x "$program" ]; then
        echo "$program"
        exit
    fi
done
