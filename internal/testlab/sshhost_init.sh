# Runs as process 1 of new mount, pid, uts and ipc namespaces and becomes one Linux
# host: the template below, a small disk of its own above it. Standard input holds
# "name:password" lines.
#   TEMPLATE  read-only root directory       SEED  files laid over it
#   MOUNT     an empty directory             NAME  host name
#   USERS     accounts to make besides root  DISK  size of the disk
#   TELNET  address and port of telnetd    (empty: none)
mount --make-rprivate /
mount -t tmpfs -o "mode=755,size=$DISK" disk "$MOUNT"
mkdir "$MOUNT/upper" "$MOUNT/work" "$MOUNT/root"
mount -t overlay -o "lowerdir=$TEMPLATE,upperdir=$MOUNT/upper,workdir=$MOUNT/work" overlay "$MOUNT/root"
cd "$MOUNT/root"
cp -a "$SEED/." .
mount --bind /usr usr
mount -o remount,bind,ro usr
mount -t proc proc proc
mount -t tmpfs -o mode=755,size=1m dev dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts
mkdir -m 1777 dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
pivot_root . .old
cd /
umount -l /.old

hostname "$NAME"
echo "$NAME" > /etc/hostname
echo "127.0.0.1 localhost $NAME" > /etc/hosts
for u in $USERS; do useradd -m -s /bin/bash -- "$u"; done
chpasswd -c SHA256 -s 1000
for keys in /etc/reevelab-keys/*; do
  [ -e "$keys" ] || continue
  u=${keys##*/}
  home=$(getent passwd "$u" | cut -d: -f6)
  install -d -m 700 -o "$u" "$home/.ssh"
  install -m 600 -o "$u" "$keys" "$home/.ssh/authorized_keys"
done
rm -rf /etc/reevelab-keys
if [ -n "$TELNET" ]; then env -i PATH="$PATH" systemd-socket-activate -l "$TELNET" -a --inetd /usr/sbin/telnetd -h < /dev/null & fi
exec env -i PATH="$PATH" HOME=/root /usr/sbin/sshd -D -e < /dev/null
