# Runs as process 1 of new pid, uts and ipc namespaces in the mount namespace a killed
# host left: the same disk, with everything in memory gone. The dead host's /proc lies below
# the new one.
mount -t proc proc /proc
umount -l /dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
hostname "$NAME"
exec env -i PATH="$PATH" HOME=/root /usr/sbin/sshd -D -e < /dev/null
