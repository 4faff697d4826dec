"""The network laboratory: punching tried on real kernels, real NAT and a pretended internet.

One run of one cell of the matrix looks like this; every box is a network
namespace, and `internet` is a single process that holds the other end of
every TUN device called "wan":

    +------+ eth0    lan1 +--------+ wan                wan +--------+      +-------+
    | left |--------------| router |=====( internet )=======| router |------| right |
    +------+   veth       +--------+  delay, loss, hops,    +--------+      +-------+
    one end of            nftables,   reordering, ICMP,     any row of      the other
    the tool              conntrack   a packet log          topology.py     end

The rooms, from the bottom up; a file imports only from those above it:

    packets.py    bytes of IPv4, IPv6, TCP and ICMP            pure
    usernat.py    NAT behaviours that Linux does not have      pure
    wire.py       what a path does to a packet                 pure
    packetlog.py  what was carried, and questions about it     pure
    sandbox.py    private namespaces; what this machine lacks
    internet.py   the process that carries packets
    topology.py   router behaviours as table rows
    build.py      a pair of rows -> namespaces, links, rules
    daemon.py     a router's port-mapping daemon
    portmaps.py   a small client of such daemons
    actors.py     scanner, stranger, busy ports: the extras of a scene
    cells.py      the table of cells: what is tried and what must come out
    mapping_cells.py  those in which a router maps ports
    table.py      all of them
    subjects.py   the tool and the baseline, as command lines
    ends.py       one child process at one end, watched
    run.py        one run of one cell
    clinic.py     --doctor behind the same routers, with a STUN server out there
    asking.py     each port-mapping daemon asked, without the tool
    home.py       the tool and a port-mapping daemon, and what that has mapped
    lives.py      how long mappings last, and what takes them back
    report.py     results -> text table, JSON; the table -> rates
    drawing.py    width, type and colours of all pictures      pure
    legible.py    a picture -> what a reader of it sees        pure
    heatmap.py    rates -> SVG                                 pure
    timeline.py   the packets of one punch -> SVG              pure
    recording.py  two terminals in a scene -> animated SVG
    __main__.py   python -m tests.natlab
    pictures.py   python -m tests.natlab.pictures
    baseline.py   the plain published algorithm, for comparison

Nothing is ever visible outside: `__main__` re-creates itself inside private
mount, network and process namespaces with a tmpfs on /run, and the kernel
takes all of it away when that process ends, however it ends.
"""
