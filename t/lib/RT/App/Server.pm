package RT::App::Server;

# The process of RT::App.

use v5.36;
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw(encode_json);

my ($state, $count, $hold) = (0, 0, 0);
my (%conns, @held, @log);

sub serve ($port) {
    $SIG{PIPE} = 'IGNORE';
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $port, Listen => 1024, ReuseAddr => 1)
        or die "port $port: $!\n";
    my $select = IO::Select->new($listen);
    while (1) {
        for my $sock ($select->can_read) {
            if ($sock == $listen) {
                my $conn = $listen->accept or next;
                $conns{$conn} = '';
                $select->add($conn);
            } elsif (!sysread $sock, $conns{$sock}, 65536,
                     length $conns{$sock})
            {
                $select->remove($sock);
                delete $conns{$sock};
                @held = grep { $_->[0] != $sock } @held;
                close $sock;
            } else {
                requests($sock);
            }
        }
    }
}

# bodies of requests have a length, and are passed over
sub requests ($sock) {
    while ($conns{$sock} =~ /\A(.*?\r\n)\r\n/s) {
        my $head = $1;
        my $size = $head =~ /^content-length: *(\d+)/mi ? $1 : 0;
        my $whole = length($head) + 2 + $size;
        return if length $conns{$sock} < $whole;
        substr $conns{$sock}, 0, $whole, '';
        my ($method, $uri) = $head =~ /\A(\S+) (\S+)/;
        my %headers = map { /^([^:]+): *(.*?)\r?$/ ? (lc $1 => $2) : () }
            split /\n/, $head;
        if ($uri =~ m{^/-/(\w+)/?(.*)}) {
            put($sock, '200 OK', [], control($1, $2));
            next;
        }
        $count++;
        push @log, [$method, $uri, \%headers];
        my @answer = answer($method, $uri, \%headers);
        if ($hold) { push @held, [$sock, @answer] }
        else       { put($sock, @answer) }
    }
}

sub control ($what, $arg) {
    if    ($what eq 'set')   { $state = $arg }
    elsif ($what eq 'hold')  { $hold = 1 }
    elsif ($what eq 'held')  { return scalar @held }
    elsif ($what eq 'count') { return $count }
    elsif ($what eq 'log')   { return encode_json(\@log) }
    elsif ($what eq 'reset') { ($count, @log) = (0) }
    elsif ($what eq 'release') {
        $hold = 0;
        put(@$_) for splice @held;
    }
    return 'ok';
}

sub answer ($method, $uri, $headers) {
    my %arg = $uri =~ /[?&](\w+)=([^&]*)/g;
    my @headers = ("X-State: $state");
    my $etag = "\"app-$state\"";
    push @headers, "ETag: $etag" if $arg{etag} // 1;
    push @headers, 'Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT'
        if $arg{modified};
    push @headers, "X-Accel-Redirect: $arg{accel}" if $arg{accel};
    push @headers, 'Cache-Control: ' . $arg{cache} =~ tr/+/ /r
        if $arg{cache};
    return ("$arg{status} As Asked", \@headers, "status $arg{status}\n")
        if $arg{status};
    return ('304 Not Modified', \@headers)
        if ($headers->{'if-none-match'} // '') eq $etag;
    my $body = "state $state\n" . '.' x ($arg{size} // 0);
    return ('200 OK', \@headers, $method eq 'HEAD' ? () : $body);
}

sub put ($sock, $status, $headers, $body = undef) {
    my $text = join "\r\n", "HTTP/1.1 $status", 'Content-Type: text/plain',
        @$headers;
    $text .= "\r\nContent-Length: " . length $body if defined $body;
    $text .= "\r\n\r\n" . ($body // '');
    my $at = 0;
    while ($at < length $text) {
        $at += syswrite($sock, $text, length($text) - $at, $at) // last;
    }
}

1;
