package RT::Soak::Net;

# The event loop of the soak and what is connected in it: one select for
# everything, nothing ever blocks.
#
#     my $loop = RT::Soak::Net->new;
#     $loop->at($time, sub { ... });     # a timer
#     $loop->turn($seconds);             # one round, at most so long
#
# RT::Soak::Conn is a connection: a subclass has input($now) (bytes were
# added to {in}) and lost($now) (it is closed, by whom and why does not
# matter).  RT::Soak::Request is one that asks by HTTP and reads answers with
# a Content-Length; RT::Soak::Resp one that speaks to Redis.

use v5.36;
use Time::HiRes qw(time);

sub new ($class) {
    return bless { r => '', w => '', who => [], timers => [] }, $class;
}

sub at ($self, $time, $code) {
    my $timers = $self->{timers};
    push @$timers, [$time, $code];
    @$timers = sort { $a->[0] <=> $b->[0] } @$timers
        if @$timers > 1 && $timers->[-2][0] > $time;
}

sub reading ($self, $fd, $on) { vec($self->{r}, $fd, 1) = $on }
sub writing ($self, $fd, $on) { vec($self->{w}, $fd, 1) = $on }

sub turn ($self, $seconds) {
    my $timers = $self->{timers};
    my $now = time;
    if (@$timers) {
        my $left = $timers->[0][0] - $now;
        $seconds = $left < 0 ? 0 : $left if $left < $seconds;
    }
    my $n = select my $r = $self->{r}, my $w = $self->{w}, undef, $seconds;
    $now = time;
    if ($n > 0) {
        my $who = $self->{who};
        $w = unpack 'b*', $w;
        while ($w =~ /1/g) {
            my $conn = $who->[pos($w) - 1];
            $conn->writable($now) if $conn;
        }
        $r = unpack 'b*', $r;
        while ($r =~ /1/g) {
            my $conn = $who->[pos($r) - 1];
            $conn->readable($now) if $conn;
        }
    }
    while (@$timers && $timers->[0][0] <= $now) {
        (shift @$timers)->[1]->($now);
    }
}


package RT::Soak::Conn;

use v5.36;
use Errno qw(EAGAIN EINTR EINPROGRESS);
use Socket qw(AF_INET SOCK_STREAM SOCK_NONBLOCK SOL_SOCKET SO_RCVBUF SO_LINGER
    IPPROTO_TCP TCP_NODELAY pack_sockaddr_in INADDR_LOOPBACK);

# begins to connect; lost() is called if that fails
sub connect ($self, $port, $rcvbuf = 0) {
    my $loop = $self->{loop};
    socket my $sock, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0
        or die "socket: $!\n";
    setsockopt $sock, SOL_SOCKET, SO_RCVBUF, $rcvbuf if $rcvbuf;
    setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;
    my $ok = CORE::connect $sock, pack_sockaddr_in($port, INADDR_LOOPBACK);
    if (!$ok && $! != EINPROGRESS) {
        my $now = Time::HiRes::time();
        $loop->at($now, sub ($t) { $self->lost($t) });
        return;
    }
    my $fd = fileno $sock;
    @$self{qw(sock fd in out)} = ($sock, $fd, '', '');
    $loop->{who}[$fd] = $self;
    $loop->reading($fd, 1);
}

sub write ($self, $bytes) {
    return if !$self->{sock};
    $self->{out} .= $bytes;
    $self->writable(0);
}

sub writable ($self, $now) {
    my $n = syswrite $self->{sock}, $self->{out}, 262_144;
    if (defined $n) {
        substr $self->{out}, 0, $n, '';
    } elsif ($! != EAGAIN && $! != EINTR && $! != Errno::ENOTCONN) {
        # the end is seen, and what came before it, by reading
        $self->{out} = '';
    }
    $self->{loop}->writing($self->{fd}, $self->{out} ne '' ? 1 : 0);
}

sub readable ($self, $now) {
    my $n = sysread $self->{sock}, $self->{in}, 262_144, length $self->{in};
    if ($n) {
        $self->input($now);
    } elsif (defined $n || $! != EAGAIN && $! != EINTR) {
        $self->drop;
        $self->lost($now);
    }
}

sub pause ($self, $on) {
    $self->{loop}->reading($self->{fd}, $on ? 0 : 1) if $self->{sock};
}

# closes without telling lost(); RST if asked
sub drop ($self, $reset = 0) {
    my $sock = delete $self->{sock} or return;
    my ($loop, $fd) = @$self{qw(loop fd)};
    $loop->reading($fd, 0);
    $loop->writing($fd, 0);
    $loop->{who}[$fd] = undef;
    setsockopt $sock, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if $reset;
    close $sock;
    @$self{qw(in out)} = ('', '');
}

sub open ($self) { return $self->{sock} ? 1 : 0 }


package RT::Soak::Request;

# ask(TEXT, CALLBACK): CALLBACK->(status, {headers}, body, now), with status
# 0 when the connection ended without an answer.  Connects when needed; one
# request at a time.

use v5.36;
our @ISA = ('RT::Soak::Conn');

sub new ($class, $loop, $port) {
    return bless { loop => $loop, port => $port }, $class;
}

sub ask ($self, $text, $callback) {
    die "asked twice\n" if $self->{callback};
    $self->{callback} = $callback;
    $self->connect($self->{port}) if !$self->open;
    $self->write($text);
}

sub busy ($self) { return $self->{callback} ? 1 : 0 }

sub input ($self, $now) {
    my $end = index $self->{in}, "\r\n\r\n";
    return if $end < 0;
    my $head = substr $self->{in}, 0, $end + 2;
    my ($status) = $head =~ m{\AHTTP/1\.\d (\d+)};
    my %headers;
    $headers{lc $1} = $2
        while $head =~ /^([^:\r\n]+):[ \t]*([^\r\n]*)/gm;
    my $length = $status == 304 || $status == 204 ? 0
        : $headers{'content-length'} // 0;
    return if length $self->{in} < $end + 4 + $length;
    my $body = substr $self->{in}, $end + 4, $length;
    substr $self->{in}, 0, $end + 4 + $length, '';
    $self->drop if ($headers{connection} // '') eq 'close';
    my $callback = delete $self->{callback};
    $callback->($status, \%headers, $body, $now) if $callback;
}

sub lost ($self, $now) {
    my $callback = delete $self->{callback};
    $callback->(0, {}, '', $now) if $callback;
}

# gives up waiting
sub forget ($self, $now) {
    $self->drop;
    $self->lost($now);
}


package RT::Soak::Resp;

# say(CALLBACK, COMMAND...): CALLBACK->(reply, now), undef when the connection
# was lost before it came; a reply is a string, an array, or \ERROR.  Replies
# that nobody waits for go to on_push.  Connects again by itself.

use v5.36;
use Scalar::Util qw(looks_like_number);
our @ISA = ('RT::Soak::Conn');

sub new ($class, $loop, $port, %opt) {
    my $self = bless { loop => $loop, port => $port, waiting => [], %opt },
        $class;
    $self->up;
    return $self;
}

sub up ($self) {
    $self->{waiting} = [];
    $self->connect($self->{port});
    $self->{on_up}->($self) if $self->{on_up};
}

sub say ($self, $callback, @args) {
    return $callback->(undef, Time::HiRes::time()) if !$self->open;
    push @{$self->{waiting}}, $callback;
    $self->write(RT::RESP::encode(@args));
}

sub waiting ($self) { return scalar @{$self->{waiting}} }

sub input ($self, $now) {
    my $pos = 0;
    while (1) {
        my ($value, $next) = parse(\$self->{in}, $pos);
        last if !defined $next;
        $pos = $next;
        if ($self->{on_push}) { $self->{on_push}->($value, $now) }
        else { (shift @{$self->{waiting}})->($value, $now) }
        return if !$self->open;
    }
    substr $self->{in}, 0, $pos, '' if $pos;
}

sub parse ($in, $pos) {
    my $end = index $$in, "\r\n", $pos;
    return if $end < 0;
    my $type = substr $$in, $pos, 1;
    my $line = substr $$in, $pos + 1, $end - $pos - 1;
    $pos = $end + 2;
    if ($type eq '$') {
        return ('', $pos) if $line < 0;
        return if length $$in < $pos + $line + 2;
        return (substr($$in, $pos, $line), $pos + $line + 2);
    }
    if ($type eq '*') {
        my @values;
        for (1 .. $line) {
            (my $value, $pos) = parse($in, $pos);
            return if !defined $pos;
            push @values, $value;
        }
        return (\@values, $pos);
    }
    return (\$line, $pos) if $type eq '-';
    return ($line, $pos);
}

sub lost ($self, $now) {
    my @waiting = splice @{$self->{waiting}};
    $_->(undef, $now) for @waiting;
    return if $self->{closed};
    $self->{loop}->at($now + 0.05, sub ($t) {
        $self->up if !$self->{closed} && !$self->open;
    });
}

sub close ($self) {
    $self->{closed} = 1;
    $self->drop;
}

1;
