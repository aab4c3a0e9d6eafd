#!/bin/sh
# Is this machine as the image means it to be? nexthop-verify, as root, on a machine that has had its first boot.
#
# One line for each claim: `ok`, or `FAIL` with what was found; exit 1 where any fails. It changes nothing.
set -u

failed=0
ok() { printf 'ok    %s\n' "$*"; }
bad() {
    printf 'FAIL  %s\n' "$*"
    failed=1
}
is() { # WHAT WANTED FOUND
    if [ "$2" = "$3" ]; then ok "$1 is $2"; else bad "$1 is ${3:-nothing}, not $2"; fi
}
most() { # WHAT LIMIT FOUND
    if awk "BEGIN { exit !(\"$3\" != \"\" && \"$3\" + 0 <= $2) }"; then ok "$1: $3, at most $2"; else bad "$1: ${3:-unknown}, more than $2"; fi
}
least() { # WHAT LIMIT FOUND
    if awk "BEGIN { exit !(\"$3\" != \"\" && \"$3\" + 0 >= $2) }"; then ok "$1: $3, at least $2"; else bad "$1: ${3:-unknown}, less than $2"; fi
}
port_in() { # FILE: the port of its `listen`, if it has one
    sed -n 's/^ *"\{0,1\}listen"\{0,1\} *= *["'\''].*:\([0-9]*\)["'\''].*/\1/p' "$1" 2>/dev/null
}

role=$(cat /etc/nexthop/role 2>/dev/null)
case $role in
appliance)
    units="nexthop-forward.service nexthopd.socket nexthopd.service nexthop-links.path nexthop-links.timer"
    port=$(port_in /etc/nexthop/nexthop.toml)
    ports="tcp:22${port:+ tcp:$port}"
    ;;
gtund)
    units="gtund.service"
    port=$(port_in /etc/nexthop/gtund.toml)
    ports="tcp:22 tcp:${port:-9443} udp:${port:-9443}"
    ;;
*)
    bad "this machine has no role: nexthop setup"
    exit 1
    ;;
esac
tunnels=$(systemctl list-units --plain --no-legend 'nexthop-gtun@*.service' | awk '{ print $1 }')

for unit in $units $tunnels; do
    is "$unit" active "$(systemctl is-active "$unit")"
done
for unit in $units; do
    is "$unit at boot" enabled "$(systemctl is-enabled "$unit" 2>/dev/null)"
done
is "the number of failed units" 0 "$(systemctl list-units --failed --plain --no-legend | wc -l)"

# What listens for others: port 22, at the far end gtund where its `listen` says, and nothing else. systemd's resolver
# and client listen on loopback or for DHCP; the API on TCP is there where nexthop.toml asks for it.
allowed=" $ports udp:68 udp:546 "
open=$(ss -Hltun | awk '{ port = $5; sub(/.*:/, "", port); host = $5; sub(/:[^:]*$/, "", host); if (host !~ /^(127\.|\[::1\])/) print $1 ":" port }' | sort -u)
for port in $open; do
    case $allowed in
    *" $port "*) ok "$port is open" ;;
    *) bad "$port is open, and nobody asked for it" ;;
    esac
done

sysctl_is() { is "$1" "$2" "$(sysctl -n "$1" 2>/dev/null | tr '\t' ' ')"; }
sysctl_is net.ipv4.ip_forward 1
sysctl_is net.core.rmem_max 67108864
sysctl_is net.core.wmem_max 67108864
sysctl_is net.core.default_qdisc fq
# `[kernel] conntrack` may ask for more.
least net.netfilter.nf_conntrack_max 262144 "$(sysctl -n net.netfilter.nf_conntrack_max 2>/dev/null)"
sysctl_is net.ipv4.conf.all.send_redirects 0
case " $(sysctl -n net.ipv4.tcp_allowed_congestion_control 2>/dev/null) " in
*" bbr "*) ok "BBR is there, and allowed" ;;
*) bad "BBR is not allowed" ;;
esac

score() { systemd-analyze security --no-pager "$1" 2>/dev/null | sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p'; }
if [ "$role" = appliance ]; then
    most "exposure of nexthopd" 2.0 "$(score nexthopd.service)"
    most "exposure of nexthop-forward" 2.5 "$(score nexthop-forward.service)"
    for tunnel in $tunnels; do most "exposure of $tunnel" 2.5 "$(score "$tunnel")"; done
else
    most "exposure of gtund" 2.5 "$(score gtund.service)"
fi

# Nobody's secret from the image, and this machine's own where they belong.
if [ -e /etc/nexthop/firstboot.yaml ]; then bad "firstboot.yaml is still there, with a token in it"; else ok "firstboot.yaml is gone"; fi
for file in /root/.bash_history /root/.python_history /root/.lesshst; do [ -s "$file" ] && bad "$file has a history"; done
for file in /var/lib/nexthop/links/*.toml /var/lib/gtund/*.pem /var/lib/gtund/*.key /etc/ssh/ssh_host_*_key; do
    [ -e "$file" ] || continue
    case $(stat -c %A "$file") in
    ????------) ok "$file is its owner's alone" ;;
    ????r-----) ok "$file is its owner's and its daemons'" ;;
    *) bad "$file can be read by others" ;;
    esac
    # Made on this machine: the first thing that its first boot makes is the machine id.
    # shellcheck disable=SC3013  # Debian's sh has it
    [ "$file" -nt /etc/machine-id ] || bad "$file is older than this machine"
done
is "the length of the machine id" 33 "$(wc -c </etc/machine-id)"
is "root's password" L "$(passwd --status root | awk '{ print $2 }')"
for program in gcc cc make ld; do command -v "$program" >/dev/null && bad "$program is there: the image has no compiler"; done

ready=$(systemd-analyze 2>/dev/null | sed -n 's/.*= \(.*\)$/\1/p' | head -1) # nothing while it boots
if [ -n "$ready" ]; then
    echo "ready $ready after the kernel started"
else
    echo "still booting: look again for the time to ready"
fi
exit $failed
