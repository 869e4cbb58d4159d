package RT::App::Cgi;

# The least that answers a FastCGI, an SCGI or a uwsgi request: "PROTOCOL N\n",
# N the requests so far.  For RT::spawn:
#
#     RT::spawn(sub { RT::App::Cgi::serve('fastcgi', $port) });

use v5.36;
use IO::Socket::INET;

my %read = (fastcgi => \&fastcgi, scgi => \&scgi, uwsgi => \&uwsgi);

sub serve ($protocol, $port) {
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $port, Listen => 64, ReuseAddr => 1)
        or die "port $port: $!\n";
    my $n = 0;
    while (my $sock = $listen->accept) {
        my $reply = $read{$protocol}->($sock) or next;
        my $body = "$protocol " . ++$n . "\n";
        print $sock $reply->("Status: 200 OK\r\nContent-Type: text/plain\r\n"
            . "ETag: \"cgi\"\r\n\r\n$body");
        close $sock;
    }
}

sub bytes ($sock, $n) {
    my $data = '';
    while (length $data < $n) {
        read $sock, $data, $n - length $data, length $data or return;
    }
    return $data;
}

# records until the empty one of stdin
sub fastcgi ($sock) {
    while (defined(my $head = bytes($sock, 8))) {
        my ($type, $id, $length, $padding) = unpack 'x C n n C', $head;
        bytes($sock, $length + $padding) // return if $length + $padding;
        next if $type != 5 || $length;
        return sub ($text) {
            my $out = pack('C C n n C x', 1, 6, $id, length $text, 0) . $text;
            $out .= pack 'C C n n C x', 1, 6, $id, 0, 0;
            return $out . pack('C C n n C x', 1, 3, $id, 8, 0) . "\0" x 8;
        };
    }
    return;
}

# a netstring of headers
sub scgi ($sock) {
    my $size = '';
    while (defined(my $digit = bytes($sock, 1))) {
        last if $digit eq ':';
        $size .= $digit;
    }
    bytes($sock, $size + 1) // return;
    return sub ($text) { $text };
}

sub uwsgi ($sock) {
    my (undef, $size) = unpack 'C v', bytes($sock, 4) // return;
    bytes($sock, $size) // return;
    return sub ($text) { $text };
}

1;
