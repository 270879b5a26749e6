#!/bin/bash
# Makes the node image of kind from Debian packages and our own builds, where the public one cannot be pulled.
# Called by xtask (node_image.rs) with WORK (a folder with bin/), IMAGE, VERSION, MIRROR and KIND_FILES set.
# It follows kind's own base and node images; what differs is commented.
set -euo pipefail
BIN=$WORK/bin ROOT=$WORK/rootfs IMAGES=$WORK/images
say() { echo "== $*"; }

# Held by all that this starts: a run that was killed is waited for by the next.
exec 9> "$WORK.lock"; flock 9

say "Debian root file system from $MIRROR"
if [ ! -e "$WORK/debootstrap.done" ]; then
  rm -rf "$ROOT"
  debootstrap --variant=minbase --include=systemd,iproute2,iptables,nftables,mount,kmod,procps,ethtool,conntrack,socat,jq,util-linux,ca-certificates,curl,libseccomp2,runc,containernetworking-plugins,e2fsprogs,netbase \
    bookworm "$ROOT" "$MIRROR"
  touch "$WORK/debootstrap.done"
fi
rm -rf "$ROOT"/var/cache/apt/* "$ROOT"/var/lib/apt/lists/* "$ROOT"/usr/share/{doc,man,locale}/* "$ROOT"/var/log/*.log

say "node files"
cp -r --no-preserve=mode,ownership "$KIND_FILES"/. "$ROOT/"
chmod 755 "$ROOT"/usr/local/bin/* "$ROOT"/kind/bin/*.sh
(
  cd "$ROOT"
  rm -f lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service lib/systemd/system/multi-user.target.wants/* \
    etc/systemd/system/*.wants/* lib/systemd/system/local-fs.target.wants/* lib/systemd/system/basic.target.wants/* \
    lib/systemd/system/sockets.target.wants/*udev* lib/systemd/system/sockets.target.wants/*initctl*
  grep -q ReadKMsg=no etc/systemd/journald.conf || echo ReadKMsg=no >> etc/systemd/journald.conf
  # Debian's sysctl files would reach the host; kind's own two are per network namespace.
  rm -f usr/lib/sysctl.d/* lib/sysctl.d/* etc/sysctl.d/99-sysctl.conf
  ln -sf /usr/lib/systemd/systemd sbin/init
  mkdir -p etc/systemd/system/multi-user.target.wants etc/kubernetes/manifests opt/cni/bin etc/cni/net.d
  ln -sf /dev/null etc/systemd/system/systemd-binfmt.service
  cp "$BIN"/{containerd,containerd-shim-runc-v2,ctr,crictl} usr/local/bin/
  cp "$BIN"/{kubelet,kubectl,kubeadm} usr/bin/
  cp usr/lib/cni/{bridge,host-local,loopback,portmap,ptp} opt/cni/bin/
  # Also right where the machine may not lower a process's OOM score (no CAP_SYS_RESOURCE).
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' etc/containerd/config.toml
  sed -i '/^OOMScoreAdjust=/d' etc/systemd/system/containerd.service
  printf '%s' "$VERSION" > kind/version
  # kindnet is no Go module: each node writes a bridge configuration for its own pod network instead.
  rm -f etc/cni/net.d/*
  install -m 755 "$HERE/cni-from-pod-cidr.sh" kind/bin/
  cp "$HERE/cni-from-pod-cidr.service" etc/systemd/system/
  for unit in kubelet containerd undo-mount-hacks cni-from-pod-cidr; do
    ln -sf "/etc/systemd/system/$unit.service" etc/systemd/system/multi-user.target.wants/
  done
)
chroot "$ROOT" ctr oci spec |
  jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' \
    > "$ROOT/etc/containerd/cri-base.json"

say "control plane images, under the names that kubeadm asks for"
"$BIN/kubeadm" config images list --kubernetes-version "$VERSION" > "$WORK/images.list"
name_of() { grep "/$1:" "$WORK/images.list"; }
rm -rf "$IMAGES"; mkdir -p "$IMAGES"
# make_image NAME USER: from the folder $WORK/image, whose root file system is files/.
make_image() {
  printf 'FROM scratch\nCOPY files/ /\nUSER %s\nENV PATH=/usr/local/bin:/usr/sbin\nENTRYPOINT ["/usr/local/bin/%s"]\n' "$2" "$1" > "$WORK/image/Dockerfile"
  docker build -q -t "$(name_of "$1")" "$WORK/image"
  docker save -o "$IMAGES/$1.tar" "$(name_of "$1")"
}
fresh_files() {
  rm -rf "$WORK/image"; mkdir -p "$WORK/image/files"/{etc,tmp,usr/local/bin}
  chmod 1777 "$WORK/image/files/tmp"
  printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > "$WORK/image/files/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' > "$WORK/image/files/etc/group"
  ln "$BIN/$1" "$WORK/image/files/usr/local/bin/$1"
}
for program in kube-apiserver kube-controller-manager kube-scheduler etcd; do
  fresh_files $program
  # Their manifests start them by bare name, so they must be on PATH.
  make_image $program 0:0
done
fresh_files coredns
make_image coredns 65532:65532
fresh_files kube-proxy
# In nftables mode kube-proxy runs nft: taken with its libraries from the node's own file system. What it reads back it
# compares with what it wrote, as names: without /etc/protocols nft tells numbers, and after an hour, when kube-proxy looks
# at everything again, every Service is taken for one that has gone.
for file in /etc/protocols /usr/sbin/nft $(chroot "$ROOT" ldd /usr/sbin/nft | grep -o '/[^ ]*'); do
  mkdir -p "$WORK/image/files$(dirname "$file")"
  cp -L "$ROOT$file" "$WORK/image/files$file"
done
unshare --net chroot "$WORK/image/files" /usr/sbin/nft -j 'add table t; add set t s { type inet_proto; elements = { tcp } }; list set t s' |
  grep -q '"tcp"' || { say "nft in kube-proxy's image does not know protocols by name"; exit 1; }
make_image kube-proxy 0:0
fresh_files pause
make_image pause 65535:65535
sed -i "s#sandbox_image = .*#sandbox_image = \"$(name_of pause)\"#" "$ROOT/etc/containerd/config.toml"

say "loading them with the node's own containerd"
tar -C "$ROOT" -c . | docker import - "$IMAGE-base"
container=$(docker run -d --privileged --cgroupns=private --entrypoint sleep --tmpfs /run -v "$IMAGES:/images:ro" "$IMAGE-base" infinity)
trap 'docker rm -f "$container" > /dev/null' EXIT
docker exec --privileged "$container" bash -c '
  set -e
  containerd > /tmp/containerd.log 2>&1 & daemon=$!
  for i in $(seq 100); do ctr version > /dev/null 2>&1 && break; sleep .1; done
  for archive in /images/*.tar; do
    ctr -n k8s.io images import --no-unpack --local "$archive" || ctr -n k8s.io images import "$archive"
  done
  ctr -n k8s.io images ls -q
  kill $daemon; wait $daemon || true
  rm /tmp/containerd.log'
docker commit "$container" "$IMAGE-loaded"
docker rm -f "$container"; trap - EXIT
printf 'FROM %s-loaded\nENV container=docker\nSTOPSIGNAL SIGRTMIN+3\nENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]\n' "$IMAGE" | docker build -q -t "$IMAGE" -
docker rmi "$IMAGE-loaded" "$IMAGE-base" $(cat "$WORK/images.list") || true
say "done: $IMAGE"
