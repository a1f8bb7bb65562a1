use super::*;

const TABLE: &str = "  \
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1137: 0100007F:1538 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5230 2 00000000e2e0cbd9 17
";

#[test]
fn inode_and_drops_are_found_in_the_table() {
    assert_eq!(TABLE.lines().filter_map(parse).collect::<Vec<_>>(), [(5230, 17)]);
}

#[test]
fn a_socket_is_found_by_its_inode() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let socket = Socket::from(socket);
    let inode = inode(&socket).expect("an inode");
    let table = fs::read_to_string("/proc/net/udp").expect("the table");
    assert!(table.lines().filter_map(parse).any(|(known, _)| known == inode));
    assert_eq!(count(&[socket]), [0]);
}
