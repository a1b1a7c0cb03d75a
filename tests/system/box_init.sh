#!/bin/bash
# The first process of a box (see box.py): makes an overlay of / its root and becomes systemd.
#
#   box_init.sh PLACE NAMESPACE...
#
# PLACE: a directory with upper, work and root. NAMESPACE...: those outside, as in "mnt:[4026531841]", of every kind.
#
# What follows the checks mounts over system directories and takes away the root. That is only ever done by the first
# process of a PID namespace in which every namespace that matters is another one than outside.
set -eu

refuse() { echo "box_init.sh: refused: $*" >&2; exit 1; }

[ $$ = 1 ] || refuse "this is not the first process of a PID namespace"
place=${1:?} && shift
for kind in mnt pid cgroup uts ipc net; do
  here=$(readlink "/proc/self/ns/$kind") || refuse "nobody can tell which $kind namespace this is"
  case " $* " in *" $here "*) refuse "this is the $kind namespace outside" ;; esac
  case " $* " in *" $kind:["*) ;; *) refuse "nobody said which $kind namespace is outside" ;; esac
done

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
if [ ! -e etc/box ]; then # the first boot: nothing of the machine's own services
  rm -f etc/systemd/system/*.wants/* etc/systemd/system/*.requires/*
  ln -sf /dev/null etc/systemd/system/console-getty.service # nobody logs in
  : >etc/fstab
  : >etc/box
fi
hostname box
ip link set lo up || :
mount -t proc proc proc
mount -o bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 console:1:3; do
  IFS=: read -r name major minor <<<"$node"
  mknod -m 666 "dev/$name" c "$major" "$minor"
done
mkdir dev/pts dev/shm
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx # PrivateDevices= needs it
mkdir .outside
pivot_root . .outside
umount -l /.outside
rmdir /.outside
mount --make-rshared /
cd /
# Neither the clock nor the kernel of the machine is this systemd's.
exec env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-sys_boot \
  /lib/systemd/systemd --system systemd.unit=multi-user.target
