#!/bin/bash
# Makes the common base of the local servers' images from Debian packages, where the public images cannot be pulled.
# Called by xtask (deps_images.rs) with WORK, IMAGE, SUITE and MIRROR set. The suite is that of this machine: MongoDB's
# stand-in is compiled here and needs the same C library.
set -euo pipefail
# Held by all that this starts: a run that was killed is waited for by the next.
exec 9> "$WORK.lock"; flock 9
rm -rf "$WORK/rootfs"
debootstrap --variant=minbase --include=ca-certificates,zlib1g,redis-server,nodejs,default-jre-headless "$SUITE" "$WORK/rootfs" "$MIRROR"
rm -rf "$WORK"/rootfs/var/cache/apt/* "$WORK"/rootfs/var/lib/apt/lists/* "$WORK"/rootfs/usr/share/{doc,man,locale}/* "$WORK"/rootfs/var/log/*.log
tar -C "$WORK/rootfs" -c . | docker import - "$IMAGE"
rm -rf "$WORK/rootfs"
