package RT::Swarm;

# Many SSE clients in one loop.
#
#     my $swarm = RT::Swarm->new($ngx, reconnect => 1, %sse_options);
#     $swarm->open(map { "/rt/c$_" } 1 .. 500);     # all heads are in
#     $swarm->run(sub { $swarm->count >= 10_000 }, $seconds, 'all arrived');
#     $swarm->pump($seconds);                # read for about so long at most
#     $swarm->count                          # events of all, rt.* left out
#     $swarm->data($i)                       # what stream $i got, in order
#     $swarm->gaps($i)                       # its rt.gap events
#     $swarm->stream($i)  $swarm->streams    # RT::SSE
#     $swarm->connects($i)                   # how often it was opened
#     $swarm->live                           # how many are open now
#     $swarm->close
#
# run is a test that the condition becomes true in time; between rounds of
# reading it calls the condition, which may publish.
#
# With reconnect => 1 a stream that ends is opened again with its last event
# id, as a browser does, after its `retry` (or retry => MS, if given).
# A stream that can't be reopened is tried again until the test ends.

use v5.36;
use Time::HiRes qw(time);

sub new ($class, $target, %opt) {
    my %own;
    $own{$_} = delete $opt{$_} for qw(reconnect retry);
    return bless { %own, target => $target, opt => { keep_raw => 0, %opt },
                   clients => [], count => 0 }, $class;
}

sub _connect ($self, $client) {
    $client->{sse} = RT::SSE->new($self->{target}, $client->{path},
        %{$self->{opt}}, wait_head => 0, last => $client->{last},
        on_event => sub ($sse, $event) {
            $client->{last} = $event->{id} if $event->{id} ne '';
            if ($event->{event} eq 'rt.gap') {
                push @{$client->{gaps}}, $event;
            } elsif ($event->{event} !~ /^rt\./) {
                push @{$client->{data}}, $event->{data};
                $self->{count}++;
            }
        });
    $client->{connects}++;
}

sub open ($self, @paths) {
    my @new;
    for my $path (@paths) {
        my $client = { path => $path, data => [], gaps => [] };
        $self->_connect($client);
        push @new, $client;
        # heads are read on the way, so that the backlog never fills up
        RT::SSE::pump(0, map { $_->{sse} } @new) if @new % 100 == 0;
    }
    push @{$self->{clients}}, @new;
    my $end = time + RT::scale(20);
    while (my @left = grep { !$_->{sse}{head} && !$_->{sse}{eof} } @new) {
        die scalar(@left) . " streams got no response\n" if time > $end;
        $self->pump(0.1);
    }
    return $self;
}

sub pump ($self, $seconds = 0.05) {
    $self->_reconnect if $self->{reconnect};
    return RT::SSE::pump($seconds, map { $_->{sse} } @{$self->{clients}});
}

sub _reconnect ($self) {
    for my $client (@{$self->{clients}}) {
        my $sse = $client->{sse};
        # a head that is not 200 ends a browser's stream for ever
        next if !$sse->{eof} && !$sse->{done};
        my $ms = $self->{retry} // $sse->retry // 1000;
        $client->{again} //= time + $ms / 1000;
        next if time < $client->{again};
        delete $client->{again};
        $sse->close if !$sse->{eof};
        # an id without data moves it, too
        $client->{last} = $sse->last_id if $sse->last_id ne '';
        eval { $self->_connect($client); 1 }
            or $client->{again} = time + $ms / 1000;
    }
}

sub run ($self, $cond, $seconds = 10, $what = 'condition') {
    my $end = time + RT::scale($seconds);
    my $value;
    while (!($value = $cond->()) && time < $end) {
        $self->pump;
    }
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    RT::ok($value, $what);
    return $value;
}

sub count ($self) { return $self->{count} }
sub data ($self, $i) { return $self->{clients}[$i]{data} }
sub gaps ($self, $i) { return $self->{clients}[$i]{gaps} }
sub connects ($self, $i) { return $self->{clients}[$i]{connects} }
sub stream ($self, $i) { return $self->{clients}[$i]{sse} }
sub streams ($self) { return map { $_->{sse} } @{$self->{clients}} }

sub live ($self) {
    return scalar grep { $_->{head} && $_->status == 200 && !$_->{eof}
                         && !$_->{done} } $self->streams;
}

sub close ($self) {
    for my $client (@{$self->{clients}}) {
        $client->{sse}->close if !$client->{sse}{eof};
    }
    $self->{clients} = [];
}

1;
