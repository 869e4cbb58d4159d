package RT::Proxy;

# A TCP proxy in a process of its own, that can fail as networks do.
#
#     my $proxy = RT::Proxy->new($port);      # of the server behind it
#     $proxy->port  $proxy->url
#     $proxy->freeze     # forwards nothing any more, in either direction, and
#                        # never says so: no FIN, no RST; new connections are
#                        # taken and hear nothing either
#     $proxy->cut($n)    # lets $n more bytes pass to the client, then RST
#     $proxy->flow       # as a wire again; what froze stays frozen
#     $proxy->stop

use v5.36;
use IO::Socket::INET;
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER);

sub new ($class, $server) {
    my $port = RT::free_port();
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC
        or die "socketpair: $!\n";
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $port, Proto => 'tcp', Listen => 128, ReuseAddr => 1)
        or die "listen: $!\n";
    my $pid = RT::spawn(sub {
        CORE::close $ours;
        _run($listener, $server, $theirs);
    });
    CORE::close $theirs;
    CORE::close $listener;
    my $self = bless { port => $port, pid => $pid, control => $ours }, $class;
    RT::register($self);
    return $self;
}

sub port ($self) { return $self->{port} }
sub url ($self) { return "redis://127.0.0.1:$self->{port}" }

sub _tell ($self, $text) {
    syswrite $self->{control}, "$text\n";
    my $bits = '';
    vec($bits, fileno $self->{control}, 1) = 1;
    select $bits, undef, undef, RT::scale(5) or die "the proxy hangs\n";
    sysread $self->{control}, my $ok, 10 or die "the proxy died\n";
}

sub freeze ($self) { $self->_tell('freeze') }
sub flow ($self) { $self->_tell('flow') }
sub cut ($self, $n) { $self->_tell("cut $n") }

sub stop ($self) {
    return if $self->{stopped}++;
    RT::kill_group($self->{pid});
}

sub abandon ($self) { $self->stop }

sub _run ($listener, $server, $control) {
    my (%peer, %client, %frozen, $frozen, $cut);
    my $drop = sub ($sock, $rst) {
        my $other = delete $peer{$sock};
        delete $peer{$other} if $other;
        for my $s (grep { $_ } $sock, $other) {
            setsockopt $s, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if $rst;
            delete $client{$s};
            CORE::close $s;
        }
    };
    my %sock;
    while (1) {
        my $bits = '';
        vec($bits, fileno $_, 1) = 1 for $listener, $control,
            grep { !$frozen{$_} } values %sock;
        select $bits, undef, undef, 5;
        if (vec $bits, fileno $control, 1) {
            sysread $control, my $text, 100 or return;
            my ($what, $n) = split ' ', $text;
            if ($what eq 'freeze') {
                $frozen = 1;
                $frozen{$_} = 1 for values %sock;
            } elsif ($what eq 'flow') {
                ($frozen, $cut) = (0, undef);
            } else {
                $cut = $n;
            }
            syswrite $control, "ok\n";
            next;
        }
        if (vec $bits, fileno $listener, 1) {
            my $c = $listener->accept or next;
            my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                PeerPort => $server, Proto => 'tcp');
            if (!$s) {
                CORE::close $c;
                next;
            }
            @peer{$c, $s} = ($s, $c);
            @sock{$c, $s} = ($c, $s);
            $client{$s} = 1;        # what it says goes to the client
            $frozen{$c} = $frozen{$s} = 1 if $frozen;
            next;
        }
        for my $sock (values %sock) {
            next if $frozen{$sock} || !defined fileno $sock
                || !vec $bits, fileno $sock, 1;
            my $n = sysread $sock, my $data, 65536;
            my $other = $peer{$sock};
            my $rst = 0;
            if ($n && defined $cut && $client{$sock}) {
                $data = substr $data, 0, $cut;
                $rst = $cut <= $n;
                $cut -= length $data;
            }
            # both ends are local and read all they get
            syswrite $other, $data if $n && length $data;
            next if $n && !$rst;
            $cut = undef if $rst;
            delete @sock{$sock, $other};
            $drop->($sock, $rst);
            last;
        }
    }
}

1;
