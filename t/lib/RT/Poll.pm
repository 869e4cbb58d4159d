package RT::Poll;

# Thousands of sockets to read: epoll by its system calls.
#
#     my $poll = RT::Poll->new;
#     $poll->add($sock, sub ($data) { ... });      # reads; '' at the end
#     $poll->turn($seconds)                        # what has come by then
#     $poll->close                                 # all sockets

use v5.36;
use Errno qw(EAGAIN EINTR);
use POSIX ();

# epoll_create1, epoll_ctl, epoll_wait or epoll_pwait
my %call = (x86_64 => [291, 233, 232], aarch64 => [20, 21, 22]);
use constant { ADD => 1, IN => 1, EVENTS => 512 };

my $machine = (POSIX::uname())[4];
# the struct is packed on one of the two
my $event = $machine eq 'x86_64' ? 'L l l' : 'L x4 l l';
my $size = length pack $event, 0, 0, 0;

sub new ($class) {
    my $call = $call{$machine} // die "no epoll known on $machine\n";
    my $fd = syscall $call->[0], 0;
    die "epoll: $!\n" if $fd < 0;
    return bless { fd => $fd, call => $call, socks => {} }, $class;
}

sub add ($self, $sock, $handler) {
    my $fd = fileno $sock;
    my ($op, $text) = (ADD, pack $event, IN, $fd, 0);
    syscall($self->{call}[1], $self->{fd}, $op, $fd, $text) == 0
        or die "epoll_ctl: $!\n";
    $self->{socks}{$fd} = [$sock, $handler];
}

sub turn ($self, $seconds) {
    my $buf = "\0" x ($size * EVENTS);
    my ($max, $ms) = (EVENTS, int $seconds * 1000);
    my ($mask, $len) = (0, 8);
    my $n = syscall $self->{call}[2], $self->{fd}, $buf, $max, $ms, $mask,
        $len;
    for my $i (0 .. $n - 1) {
        my (undef, $fd) = unpack $event, substr $buf, $i * $size, $size;
        my $entry = $self->{socks}{$fd} or next;
        my $got = sysread $entry->[0], my $data, 65536;
        next if !defined $got && ($! == EAGAIN || $! == EINTR);
        $entry->[1]->($data // '');
        if (!$got) {
            close $entry->[0];
            delete $self->{socks}{$fd};
        }
    }
    return $n;
}

sub close ($self) {
    CORE::close $_->[0] for values %{$self->{socks}};
    $self->{socks} = {};
    POSIX::close($self->{fd}) if defined $self->{fd};
    delete $self->{fd};
}

sub DESTROY ($self) { $self->close if defined $self->{fd} }

1;
