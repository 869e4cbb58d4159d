package RT::Storm;

# Numbered messages to many clients that reconnect as browsers do, while
# something bad happens: what is missing, what is told, what is repeated.
#
#     my $storm = RT::Storm->new($ngx,
#         channels => [...],        # names
#         path     => '/rt/',       # and the channel's name
#         each     => 10,           # clients of each channel
#         rate     => 200,          # messages a second, over all channels
#         retry    => 50,           # ms; without: what the stream says
#         body     => sub ($number) { ... },
#                                   # the message, which begins with it;
#                                   # without: the number alone
#         publish  => sub ($channel, $body) { ... });
#                                   # true: taken.  false or dying: perhaps
#     $storm->open                  # when each has a place
#     $storm->run($seconds, 5 => sub { ... }, 2 => sub { ... })
#                                   # publishes and reads for so long; calls
#                                   # each sub every so many seconds
#     $storm->until(sub { ... }, $seconds, 'a test')
#     $storm->finish($seconds)      # a test: everybody gets new messages
#     my $v = $storm->verdict       # {sent, lost, back, gaps, connects, bad}
#     $storm->of(qr/x/)->verdict    # of the channels that match alone
#     $storm->close
#
# Each channel has its own numbers from 0 on.  lost: messages that were taken
# and that a client did not get, and was told no gap between the one before
# and the one after.  back: messages with a number that is not higher than one
# that the client had before: repeated, or out of order.

use v5.36;
use Time::HiRes qw(time);

sub new ($class, $target, %opt) {
    my $self = bless { path => '/rt/', each => 1, rate => 200, %opt,
        target => $target, next => {}, taken => {}, clients => [],
        turn => 0 }, $class;
    $self->{body} //= sub ($n) { $n };
    for my $channel (@{$self->{channels}}) {
        $self->{next}{$channel} = 0;
        push @{$self->{clients}}, map { { channel => $channel, next => 0,
            back => 0, gaps => [], missing => [], connects => 0, bad => 0 } }
            1 .. $self->{each};
    }
    return $self;
}

sub _connect ($self, $c) {
    $c->{sse} = undef;
    $c->{sse} = eval {
        RT::SSE->new($self->{target}, $self->{path} . $c->{channel},
            wait_head => 0, keep_raw => 0, last => $c->{last},
            on_event => sub ($sse, $e) { $self->_event($c, $e) });
    };
    $c->{connects}++;
}

sub _event ($self, $c, $e) {
    if ($e->{event} eq 'rt.gap') {
        push @{$c->{gaps}}, $e->{data};
        $c->{told} = 1;
        return;
    }
    my ($n) = $e->{data} =~ /^(\d+)/;
    if (!defined $n || $e->{data} ne $self->{body}->($n)) {
        $c->{bad}++;
        return;
    }
    if ($n < $c->{next}) {
        $c->{back}++;
        return;
    }
    push @{$c->{missing}}, $c->{next} .. $n - 1
        if $n > $c->{next} && !$c->{told};
    $c->{next} = $n + 1;
    $c->{told} = 0;
}

sub _read ($self, $seconds) {
    my $now = time;
    my $n = 0;
    for my $c (@{$self->{clients}}) {
        my $sse = $c->{sse};
        if ($sse) {
            next if !$sse->{eof} && !$sse->{done};
            my $ms = $self->{retry} // $sse->retry // 1000;
            $c->{again} //= $now + $ms / 1000;
            $c->{last} = $sse->last_id if $sse->last_id ne '';
        }
        next if $sse && $now < $c->{again};
        # the messages are not to wait for a herd
        last if $n++ >= 20;
        delete $c->{again};
        $sse->close if $sse && !$sse->{eof};
        $self->_connect($c);
    }
    RT::SSE::pump($seconds, grep { $_ } map { $_->{sse} }
                            @{$self->{clients}});
}

sub _publish ($self, $channel) {
    my $n = $self->{next}{$channel}++;
    $self->{taken}{$channel}[$n] =
        eval { $self->{publish}->($channel, $self->{body}->($n)) } ? 1 : 0;
}

sub _turn ($self) {
    my $now = time;
    $self->{start} //= $now;
    my $due = int(($now - $self->{start}) * $self->{rate});
    # after a stall not all at once
    $self->{start} += ($due - $self->{turn} - 100) / $self->{rate}
        if $due > $self->{turn} + 100;
    $due = $self->{turn} + 100 if $due > $self->{turn} + 100;
    my @channels = @{$self->{channels}};
    while ($self->{turn} < $due) {
        $self->_publish($channels[$self->{turn}++ % @channels]);
    }
    $self->_read(0.005);
}

sub open ($self) {
    my $n = 0;
    for my $c (@{$self->{clients}}) {
        $self->_connect($c);
        RT::SSE::pump(0, grep { $_ } map { $_->{sse} } @{$self->{clients}})
            if ++$n % 50 == 0;
    }
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    RT::wait_for {
        $self->_read(0.02);
        !grep { !$_->{sse} || $_->{sse}->last_id eq '' } @{$self->{clients}};
    } 20, 'all clients have a place';
    return $self;
}

sub run ($self, $seconds, @every) {
    my $now = time;
    my $end = $now + $seconds;
    my @due;
    while (my ($period, $action) = splice @every, 0, 2) {
        push @due, [$now + $period, $period, $action];
    }
    while (($now = time) < $end) {
        for my $due (@due) {
            next if $now < $due->[0];
            $due->[0] = $now + $due->[1];
            $due->[2]->();
        }
        $self->_turn;
    }
}

sub until ($self, $cond, $seconds, $what) {
    my $end = time + RT::scale($seconds);
    my $ok;
    while (!($ok = $cond->()) && time < $end) {
        $self->_turn;
    }
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    RT::ok($ok, $what);
    return $ok;
}

# those that have all but the last few that were sent
sub _behind ($self, $from) {
    return grep { $_->{next} <= $from->{$_->{channel}} } @{$self->{clients}};
}

sub finish ($self, $seconds = 10) {
    my $end = time + RT::scale($seconds);
    my %from = %{$self->{next}};
    while ($self->_behind(\%from) && time < $end) {
        $self->_turn;
    }
    # and to the very end: what is published is on its way
    my %last = map { $_ => $self->{next}{$_} - 1 } @{$self->{channels}};
    while ($self->_behind(\%last) && time < $end) {
        $self->_read(0.01);
    }
    my @left = $self->_behind(\%last);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return RT::is(scalar @left, 0, 'all clients have the newest messages');
}

sub of ($self, $channels) {
    my @of = grep { $_->{channel} =~ $channels } @{$self->{clients}};
    return bless { %$self, clients => \@of }, ref $self;
}

sub verdict ($self) {
    my %v = (sent => 0, lost => 0, back => 0, bad => 0, gaps => 0,
             connects => 0, clients => scalar @{$self->{clients}});
    $v{sent} += $_ for values %{$self->{next}};
    for my $c (@{$self->{clients}}) {
        my @lost = grep { $self->{taken}{$c->{channel}}[$_] } @{$c->{missing}};
        RT::diag("$c->{channel}: lost in silence: "
            . join ' ', splice @{[@lost]}, 0, 10) if @lost && !$v{lost};
        $v{lost} += @lost;
        $v{$_} += $c->{$_} for qw(back bad);
        $v{gaps} += @{$c->{gaps}};
        $v{connects} += $c->{connects};
    }
    return \%v;
}

# the reasons of all gaps, and how many there were of each
sub reasons ($self) {
    my %n;
    for my $c (@{$self->{clients}}) {
        $n{/"reason":"([^"]*)"/ ? $1 : '?'}++ for @{$c->{gaps}};
    }
    return join ', ', map { "$_ $n{$_}" } sort keys %n;
}

# three tests: nothing lost in silence, nothing twice; gaps: the number of
# those that may be told, undef for any
sub judge ($self, $what, $gaps = undef) {
    my $v = $self->verdict;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    RT::is($v->{lost}, 0, "$what: $v->{sent} messages, $v->{clients} clients, "
        . "$v->{connects} connections: none lost in silence");
    RT::is($v->{back}, 0, "$what: none twice, none out of order");
    RT::is($v->{bad}, 0, "$what: each as it was published");
    RT::cmp_ok($v->{gaps}, '<=', $gaps, "$what: gaps")
        if defined $gaps;
    RT::note("$what: $v->{gaps} gaps (" . $self->reasons . ')');
    return $v;
}

sub close ($self) {
    for my $c (@{$self->{clients}}) {
        $c->{sse}->close if $c->{sse} && !$c->{sse}{eof};
    }
}

1;
