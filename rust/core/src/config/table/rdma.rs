//! Variables of RDMA devices and their queue pairs.

use crate::config::{Kind, Variable};

variables! {
    IB_DISABLE = Variable::switch("FLAGCX_IB_DISABLE", false)
        .refuses()
        .read_by("fabric")
        .changes("No RDMA device is used, whatever else is asked.")
        .when("To compare with the software fabric, or to keep a broken NIC out.")
        .example("1");
    IBVERBS = Variable::text("FLAGCX_P2P_IBVERBS", "libibverbs.so.1", "library name or path")
        .read_by("fabric::verbs")
        .changes("The libibverbs that is loaded at run time.")
        .when("The library lives outside the loader's path, or another one is to be used.")
        .example("/opt/rdma/lib/libibverbs.so.1");
    IB_HCA = Variable::text("FLAGCX_IB_HCA", "every device", "`[^][=]name[:port],...`, at most 32 names")
        .refuses()
        .read_by("fabric::verbs")
        .changes("Which devices and ports are used: `^` excludes, `=` matches names exactly instead of by prefix.")
        .when("The host has NICs that must not carry this traffic.")
        .example("=mlx5_0:1,mlx5_1");
    IB_PORT = Variable::integer("FLAGCX_P2P_IB_PORT", 1, 1, 255)
        .read_by("fabric::verbs")
        .changes("When set: the one port that is used on every device. Unset: every active port that `FLAGCX_IB_HCA` allows.")
        .when("Devices with two ports of which one carries other traffic.")
        .example("2");
    GID_INDEX = Variable::integer("FLAGCX_P2P_GID_INDEX", -1, -1, 255)
        .falls_back_to("FLAGCX_IB_GID_INDEX")
        .read_by("fabric::verbs")
        .changes("The GID table entry that is used as it is; -1 chooses one.")
        .when("The chosen GID is the wrong one: see `flagcx-p2p doctor`.")
        .example("3");
    IB_GID_INDEX = Variable::integer("FLAGCX_IB_GID_INDEX", -1, -1, 255)
        .read_by("fabric::verbs")
        .changes("As `FLAGCX_P2P_GID_INDEX`, for the collectives as well.")
        .when("As `FLAGCX_P2P_GID_INDEX`.")
        .example("3");
    ROCE_VERSION = Variable::integer("FLAGCX_IB_ROCE_VERSION_NUM", 2, 1, 2)
        .read_by("fabric::verbs")
        .changes("The RoCE version of the GID that is chosen.")
        .when("Fabrics that route RoCE v1 only.")
        .example("1");
    IB_ADDR_FAMILY = Variable::word("FLAGCX_IB_ADDR_FAMILY", "AF_INET", &["AF_INET", "AF_INET6"])
        .refuses()
        .read_by("fabric::verbs")
        .changes("The address family of the GID that is chosen.")
        .when("Fabrics with IPv6 addresses only.")
        .example("AF_INET6");
    IB_ADDR_RANGE = Variable::text("FLAGCX_IB_ADDR_RANGE", "any address", "`address/prefix length`")
        .refuses()
        .read_by("fabric::verbs")
        .changes("The network of the GID that is chosen.")
        .when("A NIC has addresses in several networks.")
        .example("192.0.2.0/24");
    MTU = Variable::new("FLAGCX_P2P_MTU", Kind::OneOf { default: 4096, values: &[512, 1024, 2048, 4096] })
        .unit("bytes")
        .read_by("fabric::verbs")
        .changes("The largest path MTU; the port's active MTU and the peer's bound it too.")
        .when("A switch on the way carries less than the ports say.")
        .example("1024");
    TRAFFIC_CLASS = Variable::integer("FLAGCX_P2P_IB_TC", -1, -1, 255)
        .falls_back_to("FLAGCX_IB_TC")
        .read_by("fabric::verbs")
        .changes("Traffic class of the packets; -1 takes `FLAGCX_IB_TC`, and where that is unset too the class that the NIC was given.")
        .when("The fabric's lossless class is not class 0.")
        .example("106");
    IB_TC = Variable::integer("FLAGCX_IB_TC", 0, 0, 255)
        .read_by("fabric::verbs")
        .changes("As `FLAGCX_P2P_IB_TC`, for the collectives as well; unset, the class that the NIC was given, else 0.")
        .when("As `FLAGCX_P2P_IB_TC`.")
        .example("106");
    RETRY_CNT = Variable::integer("FLAGCX_P2P_RETRY_CNT", 7, 0, 7)
        .falls_back_to("FLAGCX_IB_RETRY_CNT")
        .unit("retries")
        .read_by("fabric::verbs")
        .changes("Transport retries before a queue pair fails.")
        .when("Lower, to notice a dead path sooner.")
        .example("3");
    IB_RETRY_CNT = Variable::integer("FLAGCX_IB_RETRY_CNT", 7, 0, 7)
        .unit("retries")
        .read_by("fabric::verbs")
        .changes("As `FLAGCX_P2P_RETRY_CNT`, for the collectives as well.")
        .when("As `FLAGCX_P2P_RETRY_CNT`.")
        .example("3");
    IB_TIMEOUT = Variable::integer("FLAGCX_IB_TIMEOUT", 18, 0, 31)
        .unit("4.096 us * 2^n")
        .read_by("fabric::verbs")
        .changes("How long a queue pair waits for an acknowledgement before it tries again; 0 waits for ever.")
        .when("Higher on large, congested fabrics; lower to notice a dead path sooner.")
        .example("14");
    IB_PKEY = Variable::integer("FLAGCX_IB_PKEY", 0, 0, 65_535)
        .read_by("fabric::verbs")
        .changes("Index into the port's P_Key table.")
        .when("The fabric is partitioned.")
        .example("1");
    IB_SL = Variable::integer("FLAGCX_IB_SL", 0, 0, 15)
        .read_by("fabric::verbs")
        .changes("Service level of the packets.")
        .when("The fabric's lossless lane is not lane 0.")
        .example("3");
    RELAXED_ORDERING = Variable::integer("FLAGCX_IB_PCI_RELAXED_ORDERING", 2, 0, 2)
        .read_by("fabric::verbs")
        .changes("0: memory is registered with strict PCIe ordering. 1 or 2: relaxed where the library can.")
        .when("0 on platforms with broken relaxed ordering.")
        .example("0");
    GDR_WRITE_FLUSH = Variable::integer("FLAGCX_GDR_WRITE_REQUIRES_FLUSH", -1, -1, 1)
        .read_by("memory")
        .changes(
            "Whether a peer's WRITE to GPU memory of this process is done only once the peer has read a byte behind it. -1: as the GPU \
             needs it, which is not so for CUDA from compute capability 9.0 on. 0: never. 1: always.",
        )
        .when("0 where the platform is known to be coherent: a flush costs a round trip per transfer. 1 where bytes are seen late.")
        .example("0");
    GDR_READ_FLUSH = Variable::integer("FLAGCX_GDR_READ_REQUIRES_FLUSH", -1, -1, 1)
        .read_by("memory")
        .changes("1: registering GPU memory warns once, because this engine does not flush what a READ has brought into it.")
        .when("As FlagCX's; a program that needs it lets the other side WRITE.")
        .example("1");
    DEST_DEV_AFFINITY = Variable::switch("FLAGCX_P2P_DEST_DEV_AFFINITY", false)
        .refuses()
        .read_by("engine")
        .changes(
            "The engine of GPU `g` uses NIC number `g` (in the order of names, modulo their number) instead of the \
             nearest one, so that the engines of that GPU number are on the same NIC, hence rail, on every host.",
        )
        .when("Rail-optimised fabrics, where crossing rails costs a hop.")
        .example("1");
    NIC_MAP = Variable::text("FLAGCX_P2P_NIC_MAP", "the nearest NIC", "`GPU=name[:port],...`")
        .refuses()
        .read_by("engine")
        .changes(
            "The NIC for each GPU that is named; the others have the nearest. A name that is no NIC in use is refused with the list of \
             those that are. It wins over `FLAGCX_P2P_DEST_DEV_AFFINITY`; software devices ignore it.",
        )
        .when("`flagcx-p2p doctor topology` shows a choice that is wrong here.")
        .example("0=mlx5_0,1=mlx5_1");
    TOPO_FILE = Variable::text("FLAGCX_TOPO_FILE", "no file", "path of FlagCX's XML file")
        .read_by("engine")
        .changes(
            "The file in which `gpu` elements have a `dev` and a `net`: that is the NIC of GPUs which `FLAGCX_P2P_NIC_MAP` does not name. A \
             file that cannot be read, or a name that is no NIC, is a warning.",
        )
        .when("FlagCX's collectives are given one.")
        .example("/etc/flagcx/topology.xml");
}
