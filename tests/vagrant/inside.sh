#!/usr/bin/env bash
# inside.sh CHECKOUT: what vagrant.sh does inside its container, whose /vm is a folder of the real machine and holds PostgreSQL's image.
set -euo pipefail
checkout=$1
port=${PGPAIR_VAGRANT_PORT:-5000}
began=$SECONDS
cd /vm
export HOME=/root LIBVIRT_DEFAULT_URI=qemu:///system
export VAGRANT_HOME=/vm/home VAGRANT_CWD=$checkout/vagrant VAGRANT_DOTFILE_PATH=/vm/state VAGRANT_DEFAULT_PROVIDER=libvirt
export VAGRANT_NO_COLOR=1 VAGRANT_CHECKPOINT_DISABLE=1

say() { printf '[%4d s] %s\n' $((SECONDS - began)) "$*"; }
die() {
    printf 'vagrant.sh: %s\n' "$*" >&2
    exit 1
}

# step SECONDS NAME COMMAND...: runs it, its output in NAME.log; shows the end of that when it fails.
step() {
    local limit=$1 name=$2 since=$SECONDS
    shift 2
    say "$name: $*"
    if ! timeout --signal=INT --kill-after=60 "$limit" "$@" >"$name.log" 2>&1 </dev/null; then
        grep -v -E '^$|Progress' "$name.log" | tail -n 40 >&2
        die "$name failed after $((SECONDS - since)) s: $(grep -v '^$' "$name.log" | tail -n 1)"
    fi
    printf '         %s took %d s\n' "$name" $((SECONDS - since))
}

# changed NAME: prints how many tasks of that step changed something.
changed() { sed -n 's/^pgpair .* changed=\([0-9]*\) .* unreachable=0 .* failed=0 .*/\1/p' "$1.log" | tail -n 1; }

# in_vm COMMAND: runs it in the VM as root.
in_vm() { vagrant ssh --command "sudo sh -c '$1'" -- -o LogLevel=ERROR 2>/dev/null </dev/null | tr -d '\r'; }

# run_sql NODE STATEMENT: prints its result.
run_sql() { in_vm "docker exec -u postgres pgpair-$1 psql -XqAtd app -c \"$2\""; }

prepare() {
    step 300 lists sh -c 'apt-get update || { sleep 10; apt-get update; }'
    step 900 install env DEBIAN_FRONTEND=noninteractive apt-get -y install --no-install-recommends vagrant vagrant-libvirt libvirt-daemon-system \
        libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base qemu-system-x86 qemu-utils kmod dmidecode iptables rsync openssh-client \
        debootstrap debian-archive-keyring e2fsprogs curl
    # As root, as QEMU would otherwise be asked again and again whether it may open a /dev/kvm that it may not.
    printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\ncgroup_controllers = [ ]\n' >>/etc/libvirt/qemu.conf
    step 60 libvirt sh -ec 'systemctl restart libvirtd; virsh version'
    [ -e trixie64.box ] || step 1800 box "$checkout/tests/vagrant/box.sh" /vm/box /vm/trixie64.box
    echo '{"name":"debian/trixie64","versions":[{"version":"13.0.0","providers":[{"name":"libvirt","url":"file:///vm/trixie64.box"}]}]}' >catalog.json
    step 120 add vagrant box add catalog.json
}

ready() {
    say "asking the forwarded port"
    local answer
    answer=$(curl --silent --show-error --max-time 5 --write-out ' %{http_code}' "http://127.0.0.1:$port/ready") || die "port $port does not answer"
    printf '         /ready: %s\n' "$answer"
    case $answer in *'"ok":true'*' 200') ;; *)
        in_vm 'uptime; sudo docker ps --all; sudo journalctl -u pgpair-guard -o cat | tail -n 30; sudo docker logs --tail 30 pgpair-a 2>&1;
            sudo docker logs --tail 10 pgpair-probe 2>&1' >&2 || true
        die "/ready on the forwarded port says $answer"
        ;;
    esac
}

replicates() {
    say "writing a row, and looking for it on the standby"
    local row='' _
    [ "$(run_sql a 'SELECT state FROM pg_stat_replication')" = streaming ] || die "the standby does not stream"
    run_sql a 'CREATE TABLE vm (answer int); INSERT INTO vm VALUES (42)'
    for _ in $(seq 60); do
        row=$(run_sql b 'SELECT answer FROM vm')
        if [ "$row" = 42 ]; then break; fi
        sleep 1
    done
    [ "$row" = 42 ] || die "the row did not come to the standby"
    printf '         it is there; %s\n' "$(in_vm 'free -m' | awk '/^Mem:/ { print "of the VM'\''s " $2 " MB of memory " $3 " are used" }')"
}

prepare
# An emulated processor is twenty times slower: PostgreSQL's image is brought along, and everything may take its time.
export PGPAIR_VAGRANT_CPUS=${PGPAIR_VAGRANT_CPUS:-1}
export PGPAIR_VAGRANT_ARGS="-e postgres_pair_image_archive=/vm/image.tar -e postgres_pair_wait=600 -e pgpair_probe_wait=300 ${PGPAIR_VAGRANT_ARGS:-}"

step 60 validate vagrant validate
step 3000 up vagrant up
[ "$(changed up)" -gt 0 ] || die "the first run changed nothing"
ready
replicates

step 1800 provision vagrant provision
[ "$(changed provision)" = 0 ] || die "the second run changed something: $(grep '^changed:' provision.log | sort | uniq -c | tr '\n' ' ')"
step 120 inventory env ANSIBLE_CONFIG="$checkout/ansible/ansible.cfg" "$checkout/.venv/bin/ansible" -i "$checkout/ansible/inventories/vagrant" \
    docker_hosts -m ansible.builtin.command -a 'pgpair status http://127.0.0.1:5000'

step 300 destroy vagrant destroy --force
left=$(virsh list --all --name | tr -d '\n')
[ -z "$left" ] || die "a VM is left: $left"
say "vagrant up, a second run without a change, destroy: all as they should be"
