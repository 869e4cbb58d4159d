package RT::Wire;

# One response over HTTP/1.x, byte by byte: what no client would show.
#
#     my $w = RT::Wire->new($ngx, '/rt/a', tls => 1, after => 'garbage');
#     $w->wait(qr/data: x\n\n/, $seconds)   # until the body has that; false:
#                                           # not in time, or it has ended
#     $w->body          what the body says so far, out of its chunks
#     $w->whole         the same; a test: every byte is in its place, and
#                       the response has ended as HTTP wants it
#     $w->framed        a test: ... as far as it came
#     $w->chunks        the text of each
#     $w->status  $w->header('X')
#     $w->bytes         all that came, the head too
#     $w->ended($seconds)     the peer has closed: 'eof' or 'reset', else ''
#     $w->write($bytes)  $w->close  $w->reset  $w->half    (FIN, RST, FIN)
#
# It reads in wait and ended alone.  Options as of RT::HTTP (headers, version,
# rcvbuf, port, ...), and: last => ID, after => BYTES behind the request, tls
# => 1 (by openssl s_client: close and reset end it), accept => undef (none),
# read => BYTES (no more at once).

use v5.36;
use Errno qw(EAGAIN EINTR);
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);
use Time::HiRes qw(time);
use RT::HTTP;

my %open;

sub new ($class, $target, $path, %opt) {
    my @headers = @{$opt{headers} // []};
    my $accept = exists $opt{accept} ? $opt{accept} : 'text/event-stream';
    push @headers, Accept => $accept if defined $accept;
    push @headers, 'Last-Event-ID' => $opt{last} if defined $opt{last};
    my $self = bless { in => '', size => $opt{read} // 65536, end => '' },
        $class;
    if ($opt{tls}) { $self->_tls($target->port($opt{port} // 0), %opt) }
    else { $self->{sock} = RT::HTTP::connect_to($target, %opt) }
    $self->write(RT::HTTP::request_text($opt{method} // 'GET', $path, %opt,
        headers => \@headers) . ($opt{after} // ''));
    return $self;
}

sub _tls ($self, $port, %opt) {
    socketpair(my $mine, my $its, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
        or die "socketpair: $!\n";
    my $err = $self->{err} = RT::dir() . "/s_client-$$-$port-" . fileno $mine;
    my @argv = (qw(openssl s_client -ign_eof), $opt{trace} ? '-msg' : (),
        $opt{trace} ? ('-msgfile', $err) : (), '-quiet', @{$opt{tls_args}
        // []}, '-connect', "127.0.0.1:$port");
    $self->{child} = RT::spawn(sub {
        open STDIN, '<&', $its or POSIX::_exit(1);
        open STDOUT, '>&', $its or POSIX::_exit(1);
        open STDERR, '>', '/dev/null';
        close $_ for $mine, $its;
        exec @argv;
    });
    close $its;
    $mine->blocking(0);
    $self->{sock} = $mine;
}

sub write ($self, $bytes, $seconds = 5) {
    my $end = time + RT::scale($seconds);
    while (length $bytes) {
        my $n = syswrite $self->{sock}, $bytes;
        if (defined $n) { substr $bytes, 0, $n, '' }
        elsif ($! != EAGAIN && $! != EINTR) { return 0 }
        elsif (time > $end) { return 0 }
        else { select undef, undef, undef, 0.005 }
    }
    return 1;
}

# what is there now, or comes within so many seconds
sub read ($self, $seconds = 0) {
    return 0 if $self->{end};
    my $bits = '';
    vec($bits, fileno $self->{sock}, 1) = 1;
    return 0 if select($bits, undef, undef, $seconds) <= 0;
    my $n = sysread $self->{sock}, $self->{in}, $self->{size},
        length $self->{in};
    return $n if $n;
    return 0 if !defined $n && ($! == EAGAIN || $! == EINTR);
    $self->{end} = defined $n ? 'eof' : 'reset';
    return 0;
}

sub wait ($self, $what, $seconds = 5) {
    my $end = time + RT::scale($seconds);
    while (1) {
        return 1 if ref $what eq 'CODE' ? $what->() : $self->body =~ $what;
        my $left = $end - time;
        return 0 if $self->{end} || $left <= 0;
        $self->read($left);
    }
}

sub ended ($self, $seconds = 5) {
    my $end = time + RT::scale($seconds);
    while (!$self->{end}) {
        my $left = $end - time;
        last if $left <= 0;
        $self->read($left);
    }
    return $self->{end};
}

sub bytes ($self) { return $self->{in} }

sub _head ($self) {
    return $self->{head} if $self->{head};
    my $at = index $self->{in}, "\r\n\r\n";
    return undef if $at < 0;
    $self->{at} = $self->{next} = $at + 4;
    $self->{head} = RT::HTTP::parse_head(
        [split /\r\n/, substr $self->{in}, 0, $at + 2]);
    $self->{chunked} = ($self->{head}{headers}{'transfer-encoding'} // '')
        eq 'chunked';
    return $self->{head};
}

sub status ($self) { return ($self->_head // {})->{status} }

sub header ($self, $name) {
    return ($self->_head // return undef)->{headers}{lc $name};
}

# takes complete chunks; what is wrong is remembered
sub _unchunk ($self) {
    while (!$self->{bad} && !$self->{last}) {
        my $in = substr $self->{in}, $self->{next}, 12;
        if ($in !~ /\A(0|[1-9a-f][0-9a-f]*)\r\n/) {
            $self->{bad} = "no size of a chunk at $self->{next}: $in"
                if $in !~ /\A(?:|0\r?|[1-9a-f][0-9a-f]{0,7}\r?)\z/;
            return;
        }
        my ($size, $from) = (hex $1, $self->{next} + length($1) + 2);
        return if length $self->{in} < $from + $size + 2;
        if (substr($self->{in}, $from + $size, 2) ne "\r\n") {
            $self->{bad} = "no end of a chunk at " . ($from + $size);
            return;
        }
        $self->{next} = $from + $size + 2;
        if ($size) {
            push @{$self->{chunks}}, my $text
                = substr $self->{in}, $from, $size;
            $self->{body} .= $text;
        } else {
            $self->{last} = 1;
        }
    }
}

sub body ($self) {
    $self->_head or return '';
    return substr $self->{in}, $self->{at} if !$self->{chunked};
    $self->_unchunk;
    return $self->{body} // '';
}

sub chunks ($self) {
    $self->body;
    return @{$self->{chunks} // []};
}

# the body, and what is left over of a chunk that was cut
sub cut ($self) {
    my $body = $self->body;
    return ($body, $self->{chunked} ? substr $self->{in}, $self->{next} : '');
}

sub framed ($self, $name = 'well framed') {
    my $body = $self->body;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $bad = $self->{bad};
    $bad //= 'bytes behind the last chunk: '
        . substr $self->{in}, $self->{next}, 100
        if $self->{last} && length $self->{in} > $self->{next};
    return RT::ok(!defined $bad, $name) || RT::diag($bad);
}

sub whole ($self, $name = 'whole') {
    $self->ended;
    my $body = $self->body;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $self->framed($name);
    RT::is($self->{end}, 'eof', "$name: closed");
    RT::ok(!$self->{chunked} || $self->{last}, "$name: with its last chunk");
    return $body;
}

sub close ($self) {
    RT::kill_group(delete $self->{child}) if $self->{child};
    CORE::close $self->{sock};
}

sub reset ($self) {
    return $self->close if $self->{child};
    RT::HTTP::reset($self);
}

sub half ($self) { shutdown $self->{sock}, 1 }

# what s_client told of TLS, with trace => 1
sub trace ($self) { return RT::slurp($self->{err} // '') }

1;
