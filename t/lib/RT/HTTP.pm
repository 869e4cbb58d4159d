package RT::HTTP;

# A small HTTP/1.x client over raw sockets, with a deadline on everything.
#
#     my $r = get($ngx, '/rt/a', headers => ['If-None-Match' => $etag]);
#     $r->status, $r->line, $r->body, $r->elapsed
#     $r->header('ETag')                 joined by ', ' when given twice
#     $r->headers                        { lower-case name => value }
#
#     head($ngx, PATH, ...)   post($ngx, PATH, BODY, ...)
#     request($ngx, METHOD => PATH, ...)
#
#     my $c = RT::HTTP->new($ngx);       # keep-alive and pipelining
#     $c->send(GET => '/rt/a', ...); $c->send(GET => '/rt/b', ...);
#     my $first = $c->read; my $second = $c->read;
#     $c->write($bytes)                  anything at all
#     $c->ended($seconds)                true once the peer has closed
#     $c->close    $c->reset             FIN; RST
#
# The target is an RT::Nginx, "PORT", "HOST:PORT" or "unix:PATH".
# Options: headers => [NAME => VALUE, ...], body => BYTES, version => '1.0',
# close => 1 (Connection: close; the default of get & co.),
# timeout => SECONDS (5), port => N (the nginx's %%PORTn%%), host => NAME.
#
# read returns undef when the connection ends before a response begins, and
# dies when the deadline passes or the response is malformed.
#
#     my ($exit, $output) = curl(@args)  for HTTP/2, TLS; the deadline is 20 s

use v5.36;
use Errno qw(EAGAIN EINTR);
use Exporter qw(import);
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket qw(SOL_SOCKET SO_LINGER SO_RCVBUF IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

our @EXPORT_OK = qw(get head post request curl connect_to);

sub connect_to ($target, %opt) {
    if (ref $target) {
        $target = '127.0.0.1:' . $target->port($opt{port} // 0);
    }
    my $sock;
    if ($target =~ /^unix:(.*)/) {
        $sock = IO::Socket::UNIX->new(Peer => $1);
    } else {
        $target = "127.0.0.1:$target" if $target =~ /^\d+$/;
        my ($host, $port) = $target =~ /^(.*):(\d+)$/;
        # a small receive buffer must be set before the handshake
        $sock = IO::Socket::INET->new(
            PeerAddr => $host, PeerPort => $port, Proto => 'tcp',
            $opt{rcvbuf} ? (Sockopts => [[SO_RCVBUF, $opt{rcvbuf}]]) : (),
            Timeout => RT::scale($opt{timeout} // 5));
        setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1 if $sock;
    }
    die "connect to $target: $!\n" if !$sock;
    $sock->blocking(0);
    return $sock;
}

sub request_text ($method, $path, %opt) {
    my $version = $opt{version} // '1.1';
    my @headers = @{$opt{headers} // []};
    my $text = "$method $path HTTP/$version\r\n";
    my %have;
    while (my ($name, $value) = splice @headers, 0, 2) {
        $have{lc $name} = 1;
        $text .= "$name: $value\r\n";
    }
    $text .= 'Host: ' . ($opt{host} // 'localhost') . "\r\n"
        if !$have{host} && $version ne '1.0';
    $text .= "Connection: close\r\n" if $opt{close} && !$have{connection};
    if (defined $opt{body}) {
        $text .= 'Content-Length: ' . length($opt{body}) . "\r\n"
            if !$have{'content-length'} && !$have{'transfer-encoding'};
        return "$text\r\n$opt{body}";
    }
    return "$text\r\n";
}

sub new ($class, $target, %opt) {
    return bless {
        sock    => connect_to($target, %opt),
        in      => '',
        eof     => 0,
        timeout => RT::scale($opt{timeout} // 5),
        methods => [],
    }, $class;
}

sub write ($self, $bytes) {
    my $end = time + $self->{timeout};
    while (length $bytes) {
        my $n = syswrite $self->{sock}, $bytes;
        if (defined $n) {
            substr $bytes, 0, $n, '';
        } elsif ($! == EAGAIN || $! == EINTR) {
            $self->_select(1, $end, 'write');
        } else {
            $self->{eof} = 1;
            return 0;
        }
    }
    return 1;
}

sub send ($self, $method, $path, %opt) {
    push @{$self->{methods}}, $method;
    return $self->write(request_text($method, $path, %opt));
}

sub _select ($self, $write, $end, $what) {
    my $bits = '';
    vec($bits, fileno $self->{sock}, 1) = 1;
    my $left = $end - time;
    die "timeout: $what\n" if $left <= 0;
    my ($r, $w) = $write ? (undef, $bits) : ($bits, undef);
    select $r, $w, undef, $left;
}

# more bytes into the buffer; false at the end
sub _fill ($self, $end) {
    return 0 if $self->{eof};
    while (1) {
        my $n = sysread $self->{sock}, $self->{in}, 65536, length $self->{in};
        return 1 if $n;
        if (!defined $n && ($! == EAGAIN || $! == EINTR)) {
            $self->_select(0, $end, 'response, have '
                . length($self->{in}) . ' bytes');
            next;
        }
        $self->{eof} = 1;
        return 0;
    }
}

sub _line ($self, $end) {
    my $at;
    while (($at = index $self->{in}, "\n") < 0) {
        $self->_fill($end) or return undef;
    }
    return substr($self->{in}, 0, $at + 1, '') =~ s/\r?\n\z//r;
}

sub _bytes ($self, $n, $end) {
    while (length $self->{in} < $n) {
        $self->_fill($end) or die "response cut\n";
    }
    return substr $self->{in}, 0, $n, '';
}

sub parse_head ($lines) {
    my $line = shift @$lines // '';
    my ($status) = $line =~ m{^HTTP/1\.[01] (\d{3})(?: |$)}
        or die "bad status line: $line\n";
    my (%headers, @list);
    for (@$lines) {
        my ($name, $value) = /^([!-9;-~]+):[ \t]*(.*?)[ \t]*$/s
            or die "bad header line: $_\n";
        push @list, [$name, $value];
        $name = lc $name;
        $headers{$name} = exists $headers{$name}
            ? "$headers{$name}, $value" : $value;
    }
    return { line => $line, status => $status, headers => \%headers,
             list => \@list };
}

sub read_head ($self, $end) {
    my @lines;
    while (1) {
        my $line = $self->_line($end);
        if (!defined $line) {
            return undef if !@lines && $self->{in} eq '';
            die "response head cut\n";
        }
        last if $line eq '';
        push @lines, $line;
    }
    return parse_head(\@lines);
}

sub read ($self, %opt) {
    my $start = time;
    my $end = $start + ($opt{timeout} ? RT::scale($opt{timeout})
                                      : $self->{timeout});
    my $method = shift @{$self->{methods}} // 'GET';
    my $r = $self->read_head($end) // return undef;
    my $body = '';

    if ($method eq 'HEAD' || $r->{status} =~ /^(?:1..|204|304)$/) {
        # no body
    } elsif (($r->{headers}{'transfer-encoding'} // '') eq 'chunked') {
        while (1) {
            my $line = $self->_line($end) // die "response cut\n";
            my ($hex) = $line =~ /^([0-9a-f]+)/i or die "bad chunk: $line\n";
            last if hex $hex == 0;
            $body .= $self->_bytes(hex $hex, $end);
            $self->_bytes(2, $end);
        }
        1 while ($self->_line($end) // die "response cut\n") ne '';
    } elsif (defined(my $n = $r->{headers}{'content-length'})) {
        $body = $self->_bytes($n, $end);
    } else {
        1 while $self->_fill($end);
        $body = $self->{in};
        $self->{in} = '';
    }
    $r->{body} = $body;
    $r->{elapsed} = time - $start;
    return bless $r, 'RT::HTTP::Response';
}

# true: closed by the peer, nothing unread
sub ended ($self, $seconds = 5) {
    my $end = time + RT::scale($seconds);
    my $more = eval { $self->_fill($end) };
    return defined $more && !$more && $self->{in} eq '';
}

sub close ($self) { CORE::close $self->{sock} }

sub reset ($self) {
    setsockopt $self->{sock}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    CORE::close $self->{sock};
}

sub request ($target, $method, $path, %opt) {
    my $self = RT::HTTP->new($target, %opt);
    $self->send($method, $path, close => 1, %opt);
    my $r = $self->read // die "$method $path: connection closed\n";
    return $r;
}

sub get ($target, $path, %opt) { request($target, 'GET', $path, %opt) }
sub head ($target, $path, %opt) { request($target, 'HEAD', $path, %opt) }

sub post ($target, $path, $body, %opt) {
    request($target, 'POST', $path, body => $body, %opt);
}

sub curl (@args) {
    open my $fh, '-|', 'curl', '-sS', '--max-time', RT::scale(20), @args
        or die "curl: $!\n";
    local $/;
    my $out = <$fh>;
    CORE::close $fh;
    return ($? >> 8, $out);
}

package RT::HTTP::Response;

use v5.36;

sub status ($self) { $self->{status} }
sub line ($self) { $self->{line} }
sub headers ($self) { $self->{headers} }
sub header ($self, $name) { $self->{headers}{lc $name} }
sub body ($self) { $self->{body} }
sub elapsed ($self) { $self->{elapsed} }

1;
