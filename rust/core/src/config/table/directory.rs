//! Variables of the directory of names. The engine itself reads none of them: it does not know names.

use crate::config::Variable;

variables! {
    DIRECTORY = Variable::text("FLAGCX_P2P_DIRECTORY", "peers are found by `host:port` alone", "`static:NAME=HOST:PORT,...`, `static:FILE`, `etcd://[USER@]HOST:PORT[,HOST:PORT...][/PREFIX][?lease=SECONDS]`, `etcds://...[?ca=FILE]`")
        .read_by("the tool, the Python package")
        .changes("Where names of peers are published and looked up: a list, a file with a line `NAME=HOST:PORT` for each, or etcd 3.4 and later. A password in it is not shown.")
        .when("Peers are to be found by name: [names of peers](directory.md).")
        .example("etcd://192.0.2.9:2379/flagcx-p2p");
    DIRECTORY_PASSWORD = Variable::text("FLAGCX_P2P_DIRECTORY_PASSWORD", "that of `FLAGCX_P2P_DIRECTORY`, if it has one", "text")
        .read_by("the tool, the Python package")
        .changes("The password of the user that `FLAGCX_P2P_DIRECTORY` names. It is not shown.")
        .when("The servers ask for a user, and the password is to stand in no URL.")
        .example("a-password");
    DIRECTORY_PASSWORD_FILE = Variable::text("FLAGCX_P2P_DIRECTORY_PASSWORD_FILE", "`FLAGCX_P2P_DIRECTORY_PASSWORD`", "file")
        .read_by("the tool, the Python package")
        .changes("The file with that password; a line end at its end does not count.")
        .when("As before, where other programs see the environment.")
        .example("/etc/flagcx/directory.password");
}
