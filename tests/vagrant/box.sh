#!/usr/bin/env bash
# box.sh FOLDER BOX: makes a box for libvirt from Debian's own packages, in place of the public debian/trixie64.
# Kernel and initrd travel in the box and its own Vagrantfile names them: no boot loader, no partitions, no loop devices. That Vagrantfile
# also asks for an emulated processor, so that the box starts where the kernel's virtualisation does not work.
set -euo pipefail
folder=$1 box=$2
root=$folder/root parts=$folder/parts
packages=linux-image-cloud-amd64,systemd-sysv,systemd-resolved,libpam-systemd,udev,dbus,openssh-server,sudo,python3-apt,ca-certificates,iproute2,netbase,kmod,zstd

mirror() {
    apt-get indextargets --format "\$(LABEL)|\$(REPO_URI)" "Created-By: Packages" | sed -n "s/^$1|//p" | head -n 1
}

mounted() { umount "$root/proc" 2>/dev/null || true; }
trap mounted EXIT

mkdir -p "$parts"
main=$(mirror Debian)
security=$(mirror Debian-Security)
if [ -z "$main" ]; then
    echo "no Debian mirror in this machine's package lists: run apt-get update" >&2
    exit 1
fi
debootstrap --variant=minbase --include="$packages" trixie "$root" "$main" >"$folder/debootstrap.log" 2>&1 || {
    tail -n 3 "$folder/debootstrap.log" >&2
    exit 1
}

echo trixie >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 trixie\n::1 localhost\n' >"$root/etc/hosts"
echo '/dev/vda / ext4 rw,noatime,errors=remount-ro 0 1' >"$root/etc/fstab"
printf 'deb %s trixie main\ndeb %s trixie-updates main\n' "$main" "$main" >"$root/etc/apt/sources.list"
if [ -n "$security" ]; then printf 'deb %s trixie-security main\n' "$security" >>"$root/etc/apt/sources.list"; fi
printf '[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=ipv4\n[DHCPv4]\nClientIdentifier=mac\n' >"$root/etc/systemd/network/80-dhcp.network"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved ssh
chroot "$root" systemctl --quiet disable systemd-networkd-wait-online
# What would run beside the test and only cost time.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer getty@tty1.service

chroot "$root" useradd --create-home --shell /bin/bash vagrant
install -d -m 700 "$root/home/vagrant/.ssh"
install -m 600 "$(dpkg -L vagrant | grep '/keys/vagrant.pub$')" "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"

printf '%s\n' virtio_pci virtio_blk virtio_net ext4 >>"$root/etc/initramfs-tools/modules"
sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
mount -t proc proc "$root/proc"
chroot "$root" update-initramfs -u -k all >"$folder/initramfs.log" 2>&1
mounted
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
: >"$root/etc/machine-id"

mkfs.ext4 -q -F -d "$root" "$folder/disk.raw" 10G
qemu-img convert -O qcow2 "$folder/disk.raw" "$parts/box.img"
rm "$folder/disk.raw"
cp "$root"/boot/vmlinuz-* "$parts/vmlinuz"
cp "$root"/boot/initrd.img-* "$parts/initrd.img"
echo '{"provider":"libvirt","format":"qcow2","virtual_size":10}' >"$parts/metadata.json"
cat >"$parts/Vagrantfile" <<'V'
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 900
  # Another key would take another half minute.
  config.ssh.insert_key = false
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "qemu64"
    # With it, QEMU 7.2 crashes this kernel now and then.
    libvirt.cpu_feature name: "cx16", policy: "disable"
    libvirt.disk_driver cache: "unsafe"
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.img", __dir__)
    libvirt.cmd_line = "root=/dev/vda ro console=ttyS0 net.ifnames=0 quiet mitigations=off"
  end
end
V
tar -C "$parts" -cf "$box.new" metadata.json Vagrantfile box.img vmlinuz initrd.img
mv "$box.new" "$box"
