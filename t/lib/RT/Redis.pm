package RT::Redis;

# A private redis-server, and a client of it.
#
#     my $redis = RT::Redis->new;                  # loopback, a free port
#     my $redis = RT::Redis->new(start => 0, args => [requirepass => 'x'],
#                                password => 'x');
#
#     $redis->port  $redis->url  $redis->pid  $redis->socket (a UNIX one)
#     $redis->start                   the same port, up when it returns
#     $redis->stop                    SIGTERM and waits
#     $redis->kill9                   SIGKILL
#     $redis->pause  $redis->resume   SIGSTOP, SIGCONT
#     $redis->restart                 kill9, start
#
#     $redis->cmd(SET => 'k', 'v')    any command; dies on -ERR and deadline
#     $redis->publish($channel, $payload)       number of receivers
#     $redis->numsub($channel)
#     $redis->wait_sub($channel, $n = 1)        until that many subscribers
#     $redis->clients                 CLIENT LIST as hashes, ours left out
#     $redis->pipeline([CMD...], [CMD...])      replies, -ERR as an RT::Error
#
# The connection is made on first use and again after a failure.
# RT::RESP->new("PORT") is a bare client: send, read, cmd.

use v5.36;
use File::Path qw(make_path);

my $count = 0;

sub new ($class, %args) {
    my $self = bless {
        dir => RT::dir() . '/redis' . ++$count, port => RT::free_port(),
        args => $args{args} // [], password => $args{password},
    }, $class;
    make_path($self->{dir});
    $self->start if $args{start} // 1;
    return $self;
}

sub port ($self) { return $self->{port} }
sub pid ($self) { return $self->{pid} }
sub socket ($self) { return "$self->{dir}/redis.sock" }

sub url ($self) {
    my $auth = defined $self->{password} ? ":$self->{password}\@" : '';
    return "redis://${auth}127.0.0.1:$self->{port}";
}

sub start ($self) {
    return $self if $self->{pid};
    my @args = @{$self->{args}};
    my @pairs;
    while (my ($name, $value) = splice @args, 0, 2) {
        push @pairs, "--$name", $value;
    }
    # unixsocket's path may be too long for a socket
    push @pairs, '--unixsocket', $self->socket if length $self->socket < 100;
    my $out = "$self->{dir}/log";
    $self->{pid} = RT::spawn([qw(redis-server --bind 127.0.0.1 --port),
        $self->{port}, '--dir', $self->{dir}, '--save', '', qw(--appendonly
        no --daemonize no), @pairs], out => $out);
    RT::register($self);
    my $up = RT::poll_until(sub {
        return 'dead' if !RT::running($self->{pid});
        my $pong = eval { $self->cmd('PING') };
        return 1 if defined $pong || $@ =~ /NOAUTH|NOPERM/;
    }, 10) // 'late';
    die "redis-server does not start ($up):\n" . RT::slurp($out)
        if $up ne '1';
    return $self;
}

sub stop ($self) {
    my $pid = delete $self->{pid} // return;
    delete $self->{client};
    kill CONT => $pid;
    kill TERM => $pid;
    RT::poll_until(sub { !RT::running($pid) }, 5);
    RT::kill_group($pid);
}

sub kill9 ($self) {
    delete $self->{client};
    RT::kill_group(delete $self->{pid}) if $self->{pid};
}

sub abandon ($self) { $self->kill9 }
sub pause ($self) { kill STOP => $self->{pid} }
sub resume ($self) { kill CONT => $self->{pid} }

sub restart ($self) {
    $self->kill9;
    $self->start;
}

sub client ($self) {
    return $self->{client} if $self->{client};
    my $client = RT::RESP->new($self->{port});
    $client->cmd(AUTH => $self->{password}) if defined $self->{password};
    return $self->{client} = $client;
}

sub cmd ($self, @args) {
    my $reply = eval { $self->client->cmd(@args) };
    if ($@) {
        delete $self->{client} if $@ !~ /^-/;
        die $@;
    }
    return $reply;
}

sub pipeline ($self, @commands) {
    my $client = $self->client;
    $client->send(@$_) for @commands;
    return map { $client->read } @commands;
}

sub publish ($self, $channel, $payload) {
    return $self->cmd(PUBLISH => $channel, $payload);
}

sub numsub ($self, $channel) {
    return $self->cmd(PUBSUB => 'NUMSUB', $channel)->[1];
}

sub wait_sub ($self, $channel, $n = 1) {
    return RT::wait_for { $self->numsub($channel) >= $n } 5,
        "$channel is subscribed in Redis";
}

sub clients ($self) {
    my $own = $self->cmd(CLIENT => 'ID');
    my @list = map { { map { split /=/, $_, 2 } split / / } }
        split /\n/, $self->cmd(CLIENT => 'LIST');
    return grep { $_->{id} != $own } @list;
}

package RT::RESP;

use v5.36;
use Errno qw(EAGAIN EINTR);
use Time::HiRes qw(time);

sub new ($class, $target, %opt) {
    return bless { http => RT::HTTP->new($target, %opt),
                   timeout => RT::scale($opt{timeout} // 5) }, $class;
}

sub encode (@args) {
    return join '', '*' . @args . "\r\n",
        map { '$' . length($_) . "\r\n$_\r\n" } @args;
}

sub send ($self, @args) {
    $self->{http}->write(encode(@args)) or die "connection lost\n";
}

# a string, number, undef (nil), array, or RT::Error
sub read ($self, $seconds = undef) {
    my $end = time + ($seconds ? RT::scale($seconds) : $self->{timeout});
    return $self->_value($end);
}

sub _value ($self, $end) {
    my $line = $self->{http}->_line($end) // die "connection lost\n";
    my $type = substr $line, 0, 1, '';
    return $line if $type eq '+' || $type eq ':';
    return bless { text => $line }, 'RT::Error' if $type eq '-';
    return undef if $line eq '-1';
    return substr $self->{http}->_bytes($line + 2, $end), 0, $line
        if $type eq '$';
    return [map { $self->_value($end) } 1 .. $line]
        if $type eq '*' || $type eq '>';
    die "bad reply: $type$line\n";
}

sub cmd ($self, @args) {
    $self->send(@args);
    my $reply = $self->read;
    die "-$reply->{text}\n" if ref $reply eq 'RT::Error';
    return $reply;
}

1;
