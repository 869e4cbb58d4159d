package RT::FakeRedis;

# A Redis whose faults are scripted, in a process of its own.
#
#     my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
#         return $conn->raw("garbage\r\n") if $conn->mode eq 'garbage';
#         return if $conn->mode eq 'silent';
#         return $conn->close if uc $cmd[0] eq 'PING';
#         $conn->default(@cmd);
#     });
#
#     $fake->port  $fake->url            as RT::Redis
#     $fake->mode('silent')              what $conn->mode says from now on
#     $fake->push($channel, $payload)    a message to whoever subscribed;
#                                        number of receivers
#     $fake->raw($bytes)                 these bytes to all connections
#     $fake->drop                        closes all connections (RST)
#     $fake->deaf  $fake->listen         stops listening; listens again
#     $fake->commands  ->commands(qr/x/) "NAME ARG ..." of all that came,
#                                        names in upper case
#     $fake->connections                 how many are open
#     $fake->stop
#
# In the script, which runs in that process (what it assigns is not seen by
# the test), $conn has: default(@cmd) (as Redis answers it), raw($bytes),
# ok, err($text), bulk($text), array(@bulks), close, cut($bytes) (sends
# them, then RST), mode, n (1 for the first connection made, and so on),
# peers (all connections).
# Without a script every command gets its default.
#
# Calls of the test are answered by the process, so that they are done when
# they return.

use v5.36;
use IO::Handle;
use IO::Socket::INET;
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

sub new ($class, %args) {
    my $port = $args{port} // RT::free_port();
    my $script = $args{script} // sub ($conn, @cmd) { $conn->default(@cmd) };
    my $log = RT::dir() . "/fake-$port.log";
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC
        or die "socketpair: $!\n";
    my $pid = RT::spawn(sub {
        close $ours;
        RT::FakeRedis::Server->new($port, $script, $theirs, $log)->run;
    }, out => $log . '.err');
    close $theirs;
    my $self = bless { port => $port, pid => $pid, control => $ours,
                       log => $log }, $class;
    RT::register($self);
    $self->_call('mode', $args{mode} // '');        # it listens
    return $self;
}

sub _call ($self, @args) {
    my $text = join ' ', map { unpack 'H*', $_ } @args;
    syswrite $self->{control}, "$text\n";
    my $line = '';
    my $end = time + RT::scale(5);
    while ($line !~ /\n/) {
        my $bits = '';
        vec($bits, fileno $self->{control}, 1) = 1;
        select $bits, undef, undef, $end - time > 0 ? $end - time : 0
            or die "the fake Redis does not answer\n";
        sysread $self->{control}, $line, 4096, length $line
            or die "the fake Redis died: " . RT::slurp("$self->{log}.err");
    }
    chomp $line;
    return $line;
}

sub port ($self) { return $self->{port} }
sub url ($self) { return "redis://127.0.0.1:$self->{port}" }
sub mode ($self, $mode) { return $self->_call('mode', $mode) }
sub push ($self, @args) { return $self->_call('push', @args) }
sub raw ($self, $bytes) { return $self->_call('raw', $bytes) }
sub drop ($self) { return $self->_call('drop') }
sub deaf ($self) { return $self->_call('deaf') }
sub listen ($self) { return $self->_call('listen') }
sub connections ($self) { return $self->_call('connections') }

sub commands ($self, $pattern = qr//) {
    return grep { $_ =~ $pattern } map { pack 'H*', $_ } split /\n/,
        RT::slurp($self->{log});
}

sub stop ($self) {
    return if $self->{stopped}++;
    RT::kill_group($self->{pid});
}

sub abandon ($self) { $self->stop }

package RT::FakeRedis::Server;

use v5.36;
use Errno qw(EAGAIN EINTR);

sub new ($class, $port, $script, $control, $log) {
    open my $fh, '>>:raw', $log or die "$log: $!\n";
    $fh->autoflush(1);
    my $self = bless { port => $port, script => $script, log => $fh,
        control => $control, mode => '', conns => {}, n => 0 }, $class;
    $self->do_listen;
    return $self;
}

sub do_listen ($self) {
    return 0 if $self->{listener};
    $self->{listener} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $self->{port}, Proto => 'tcp', Listen => 128,
        ReuseAddr => 1, Blocking => 0) or die "listen: $!\n";
    return 0;
}

sub run ($self) {
    while (1) {
        my $bits = '';
        my %fd = map { fileno $_->{sock} => $_ } values %{$self->{conns}};
        vec($bits, $_, 1) = 1 for keys %fd;
        vec($bits, fileno $self->{control}, 1) = 1;
        vec($bits, fileno $self->{listener}, 1) = 1 if $self->{listener};
        select my $ready = $bits, undef, undef, 5;

        if ($self->{listener} && vec $ready, fileno $self->{listener}, 1) {
            $self->accept;
        }
        for my $fd (keys %fd) {
            $fd{$fd}->readable if vec $ready, $fd, 1;
        }
        # last, so that what a call reports includes what came before it
        if (vec $ready, fileno $self->{control}, 1) {
            $self->control or return;
        }
    }
}

sub accept ($self) {
    my $sock = $self->{listener}->accept or return;
    $sock->blocking(0);
    my $n = ++$self->{n};
    $self->{conns}{$n} = bless { sock => $sock, n => $n, server => $self,
                                 in => '', subs => {}, psubs => {} },
        'RT::FakeRedis::Conn';
}

sub control ($self) {
    my $line = '';
    while ($line !~ /\n/) {
        sysread $self->{control}, $line, 65536, length $line or return 0;
    }
    chomp $line;
    my ($name, @args) = map { pack 'H*', $_ } split / /, $line, -1;
    my $method = "do_$name";
    my $reply = $self->$method(@args);
    syswrite $self->{control}, "$reply\n";
    return 1;
}

sub conns ($self) {
    return map { $self->{conns}{$_} } sort { $a <=> $b }
        keys %{$self->{conns}};
}

sub do_mode ($self, $mode) {
    $self->{mode} = $mode;
    return 0;
}

sub do_raw ($self, $bytes) {
    $_->raw($bytes) for $self->conns;
    return scalar keys %{$self->{conns}};
}

sub do_drop ($self) {
    $_->cut for $self->conns;
    return 0;
}

sub do_deaf ($self) {
    CORE::close delete $self->{listener} if $self->{listener};
    return 0;
}

sub do_connections ($self) { return scalar keys %{$self->{conns}} }

sub do_push ($self, $channel, $payload) {
    my $n = 0;
    for my $conn ($self->conns) {
        if ($conn->{subs}{$channel}) {
            $conn->array('message', $channel, $payload);
            $n++;
        }
        for my $pattern (keys %{$conn->{psubs}}) {
            my $re = join '', map { $_ eq '*' ? '.*' : $_ eq '?' ? '.'
                : quotemeta } split //, $pattern;
            next if $channel !~ /\A$re\z/s;
            $conn->array('pmessage', $pattern, $channel, $payload);
            $n++;
        }
    }
    return $n;
}

package RT::FakeRedis::Conn;

use v5.36;
use Errno qw(EAGAIN EINTR);
use Socket qw(SOL_SOCKET SO_LINGER);

sub n ($self) { return $self->{n} }
sub mode ($self) { return $self->{server}{mode} }
sub peers ($self) { return $self->{server}->conns }

sub readable ($self) {
    my $n = sysread $self->{sock}, $self->{in}, 65536, length $self->{in};
    return if !defined $n && ($! == EAGAIN || $! == EINTR);
    return $self->close if !$n;
    while (!$self->{closed} and my @cmd = $self->command) {
        $cmd[0] = uc $cmd[0];
        my $text = unpack 'H*', "@cmd";
        print {$self->{server}{log}} "$text\n";
        $self->{server}{script}->($self, @cmd);
    }
}

# takes one whole command off the buffer
sub command ($self) {
    my $at = 0;
    my $line = sub {
        my $end = index $self->{in}, "\r\n", $at;
        return undef if $end < 0;
        my $text = substr $self->{in}, $at, $end - $at;
        $at = $end + 2;
        return $text;
    };
    my ($n) = ($line->() // return) =~ /^\*(\d+)$/ or die "not a command\n";
    my @cmd;
    for (1 .. $n) {
        my ($len) = ($line->() // return) =~ /^\$(\d+)$/ or die "no bulk\n";
        return if length $self->{in} < $at + $len + 2;
        CORE::push @cmd, substr $self->{in}, $at, $len;
        $at += $len + 2;
    }
    substr $self->{in}, 0, $at, '';
    return @cmd;
}

sub raw ($self, $bytes) {
    while (length $bytes && !$self->{closed}) {
        my $n = syswrite $self->{sock}, $bytes;
        if ($n) {
            substr $bytes, 0, $n, '';
        } elsif ($! == EAGAIN) {
            my $bits = '';
            vec($bits, fileno $self->{sock}, 1) = 1;
            select undef, $bits, undef, 5 or last;
        } else {
            $self->close;
        }
    }
}

sub encode ($value) {
    return ref $value ? '*' . @$value . "\r\n" . join '', map { encode($_) }
            @$value
        : !defined $value ? "\$-1\r\n"
        : '$' . length($value) . "\r\n$value\r\n";
}

sub ok ($self) { $self->raw("+OK\r\n") }
sub err ($self, $text) { $self->raw("-$text\r\n") }
sub bulk ($self, $text) { $self->raw(encode($text)) }
sub array ($self, @bulks) { $self->raw(encode([@bulks])) }

sub close ($self) {
    return if $self->{closed}++;
    CORE::close $self->{sock};
    delete $self->{server}{conns}{$self->{n}};
}

sub cut ($self, $bytes = '') {
    $self->raw($bytes);
    return if $self->{closed};
    setsockopt $self->{sock}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $self->close;
}

sub _subscribed ($self, $verb, $name) {
    my $n = keys(%{$self->{subs}}) + keys %{$self->{psubs}};
    $self->raw(encode2($verb, $name, $n));
}

sub encode2 ($verb, $name, $n) {
    return "*3\r\n" . encode($verb) . encode($name) . ":$n\r\n";
}

sub default ($self, $name, @args) {
    $name = uc $name;
    if ($name =~ /^(P?)(UN)?SUBSCRIBE$/) {
        my $set = $1 ? $self->{psubs} : $self->{subs};
        @args = (sort keys %$set)[0 .. keys(%$set) - 1] if $2 && !@args;
        for my $channel (@args) {
            if ($2) { delete $set->{$channel} }
            else    { $set->{$channel} = 1 }
            $self->_subscribed(lc $name, $channel);
        }
    } elsif ($name eq 'PING') {
        if (%{$self->{subs}} || %{$self->{psubs}}) {
            $self->array('pong', $args[0] // '');
        } else {
            $self->raw(@args ? encode($args[0]) : "+PONG\r\n");
        }
    } elsif ($name =~ /^(?:AUTH|SELECT|CLIENT|SET)$/) {
        $self->ok;
    } elsif ($name eq 'GET') {
        $self->bulk(undef);
    } elsif ($name eq 'PUBLISH') {
        my $n = $self->{server}->do_push(@args);
        $self->raw(":$n\r\n");
    } else {
        $self->err("ERR unknown command '$name'");
    }
}

1;
