# Fills the current directory with the root of a small, clean Debian host. /usr, /proc
# and /dev are mounted by sshhost_init.sh. Accounts come from Debian's pristine
# base-passwd lists, never from this machine's own files.
umask 022
mkdir -p usr proc dev run/sshd run/lock run/sudo tmp root home var/log var/mail var/tmp var/spool var/cache \
  var/lib/sudo var/lib/misc sys mnt srv opt etc/default etc/ssh .old
chmod 1777 tmp var/tmp
chmod 700 root var/lib/sudo
ln -s /run var/run
for d in bin sbin lib lib64; do ln -s "usr/$d" "$d"; done

for f in pam.d security login.defs nsswitch.conf skel shells ld.so.cache ld.so.conf ld.so.conf.d sudoers alternatives \
  debian_version os-release profile bash.bashrc services protocols default/useradd; do
  if [ -e "/etc/$f" ]; then cp -a "/etc/$f" "etc/$f"; fi
done
mkdir -m 750 etc/sudoers.d

{
  sed 's|^root:.*|root:x:0:0:root:/root:/bin/bash|; s|^\([^:]*\):[^:]*:|\1:x:|' /usr/share/base-passwd/passwd.master
  echo 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin'
} > etc/passwd
sed 's|^\([^:]*\):[^:]*:|\1:x:|' /usr/share/base-passwd/group.master > etc/group
sed 's|:.*|:*:20000:0:99999:7:::|' etc/passwd > etc/shadow
sed 's|:.*|:*::|' etc/group > etc/gshadow
chmod 640 etc/shadow etc/gshadow
chgrp 42 etc/shadow etc/gshadow

# A wrong password answers at once: tests make many.
sed -i 's/pam_unix.so nullok/pam_unix.so nullok nodelay/' etc/pam.d/common-auth
sed -i 's/delay=3000000/delay=0/' etc/pam.d/login
sed -i 's/^FAIL_DELAY.*/FAIL_DELAY 0/' etc/login.defs

touch var/log/wtmp var/log/btmp var/log/lastlog run/utmp
