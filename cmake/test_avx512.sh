#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The tests of the kernels and of all that computes with them on AVX-512, on any x86-64 machine: Debian's
# bochs boots a kernel with nothing but the test programs and their data. An hour; NHA_BOCHS_SECONDS says
# when to give up. Where the processor has AVX-512, tests/run.sh runs all tests on it, in minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
build=$top/build/avx512
bash cmake/install_packages.sh g++ cmake ninja-build libxsimd-dev libeigen3-dev nlohmann-json3-dev \
  libgtest-dev bochs bochs-term bochsbios vgabios grub-pc-bin grub-common xorriso mtools cpio busybox-static

# Static programs, as the machine has no libraries; CMake offers OpenMP's as a shared one only.
cmake --preset sse2 -B "$build" -DNHA_MARCH=x86-64-v4 -DNHA_BUILD_EXAMPLES=OFF \
  -DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON
cmake --build "$build" --parallel "$(nproc)"

machine=$build/machine
rm -rf "$machine"
mkdir -p "$machine"/{root/bin,root/proc,root/dev,root/tmp,iso/boot/grub}
cd "$machine"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
apt-get -q download "$kernel"
dpkg -x "$kernel"_*.deb package
cp package/boot/vmlinuz-* iso/boot/vmlinuz

# The tests find their data by the paths they were compiled with.
mkdir -p "root$top/tests" "root$top/examples/byte_lm"
cp -r "$top/tests/data" "root$top/tests"
cp "$top"/examples/byte_lm/*.{json,safetensors,txt} "root$top/examples/byte_lm"
cp /bin/busybox root/bin
# Files and training have no kernel that the others do not run, and would take another hour.
for program in "$build"/bin/nha_*_tests; do
  case $program in */nha_io_tests | */nha_train_tests) continue ;; esac
  strip -o "root/bin/$(basename "$program")" "$program"
done
cat >root/init <<'EOF'
#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox grep -q -m 1 avx512vl /proc/cpuinfo || echo "no AVX-512"
# ByteModel runs the example's whole model: many minutes here, and no kernel that others do not run.
# Log1p's test takes the x87's logarithm for exact, which this machine's is not, by 7 units of a double.
for program in /bin/nha_*_tests; do
  echo "==== $program"
  $program --gtest_brief=1 --gtest_filter=-ByteModel*:Log1p/*.IsWithinTwoUlp
  echo "==== $program ended with $?"
done
echo "==== end"
# The last of the output is lost without.
/bin/busybox sleep 3
/bin/busybox poweroff -f
EOF
chmod +x root/init
(cd root && find . | cpio --quiet -o -H newc | gzip -1) >iso/boot/initrd.gz

# Without clearcpuid=xsavec Linux finds that bochs' sizes of the saved registers do not agree, and switches
# off AVX with them.
cat >iso/boot/grub/grub.cfg <<'EOF'
set timeout=0
menuentry tests {
  linux /boot/vmlinuz console=ttyS0,115200 quiet panic=-1 nokaslr mitigations=off tsc=reliable lpj=1000000 noapic nolapic rcupdate.rcu_expedited=1 8250.nr_uarts=1 noxsaves clearcpuid=xsavec
  initrd /boot/initrd.gz
}
EOF
grub-mkrescue -d /usr/lib/grub/i386-pc -o tests.iso iso >/dev/null 2>&1
cat >bochsrc <<'EOF'
config_interface: textconfig
display_library: term
megs: 1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=corei7_skylake_x, count=1, ips=200000000, reset_on_triple_fault=0
ata0-master: type=cdrom, path=tests.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
clock: sync=none, time0=1700000000
log: bochs.log
panic: action=fatal
EOF
# Debian's bochs is its debugger, which waits for a command, and draws on a terminal of its own, where it
# waits until somebody reads what it has drawn.
echo c >commands.txt
TERM=xterm timeout -k 5 "${NHA_BOCHS_SECONDS:-7200}" bochs-bin -q -f bochsrc -rc commands.txt \
  </dev/null >bochs.txt 2>&1 &
bochs=$!
screen=
while [ -z "$screen" ] && kill -0 "$bochs" 2>/dev/null; do
  sleep 1
  screen=$(sed -n 's|^Bochs connected to screen "\(/dev/pts/[0-9]*\)".*|\1|p' bochs.txt)
done
[ -z "$screen" ] || cat "$screen" >/dev/null 2>&1 &
wait "$bochs" || true
tr -d '\r' <serial.txt | sed -n '/^====/,$p'

programs=$(ls root/bin/nha_*_tests | wc -l)
passed=$(grep -c 'ended with 0' serial.txt || true)
echo "$passed of $programs test programs passed on AVX-512"
[ "$passed" -eq "$programs" ] && ! grep -q "no AVX-512" serial.txt
