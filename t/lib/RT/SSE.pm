package RT::SSE;

# An SSE client by the HTML standard's rules, over HTTP/1.x.
#
#     my $s = RT::SSE->new($ngx, '/rt/a', headers => [...], last => $id);
#                                     # back when the response head is in
#     $s->status  $s->header('Content-Type')  $s->body (of an error)
#     my $e = $s->event;              # the next one, undef after 5 s or at
#     my $e = $s->event($seconds);    #   the end; {id, event, data, at}
#     $s->wait(3)                     # the next 3 events as a list
#     $s->expect('a', 'b')            # a test: the data of the next events
#     $s->none($seconds)              # a test: nothing comes for so long
#     $s->comments                    # arrival times
#     $s->wait_comment                # until one more has come
#     $s->retry  $s->last_id          # as the client would use them
#     $s->raw                         # all bytes of the body so far
#     $s->ended($seconds)             # closed by the server in that time
#     $s->clean                       # ended as HTTP wants it (last chunk)
#     $s->close  $s->reset            # FIN; RST
#
# Options besides those of RT::HTTP: last => ID (Last-Event-ID),
# keep_raw => 0 (no raw, for long streams), rcvbuf => BYTES (a slow client
# that does not call event), on_event => sub ($sse, $event) (called instead
# of queueing), wait_head => 0.
#
# `event` is 'message' when the stream names none, `id` the last event id.
#
# RT::SSE::pump($seconds, @streams) reads from many at once, and is back
# after one round; RT::Swarm is built on it.

use v5.36;
use Errno qw(EAGAIN EINTR);
use Scalar::Util qw(weaken);
use Time::HiRes qw(time);

my %open;       # those that RT::Nginx's stop has to close

sub new ($class, $target, $path, %opt) {
    my @headers = @{$opt{headers} // []};
    push @headers, Accept => 'text/event-stream'
        if !grep { /^accept$/i } @headers;
    push @headers, 'Last-Event-ID' => $opt{last} if defined $opt{last};

    my $self = bless {
        http => RT::HTTP->new($target, %opt), target => $target,
        path => $path, in => '', text => '', raw => '', bom => 1,
        keep_raw => $opt{keep_raw} // 1, on_event => $opt{on_event},
        events => [], comments => [], data => undef, type => '',
        id => $opt{last} // '', next_id => $opt{last} // '', chunk => 0,
    }, $class;
    $self->{http}->send($opt{method} // 'GET', $path, %opt,
                        headers => \@headers);
    $self->{fd} = fileno $self->{http}{sock};
    $open{$self + 0} = $self;
    weaken $open{$self + 0};
    if ($opt{wait_head} // 1) {
        my $end = time + RT::scale($opt{timeout} // 5);
        while (!$self->{head} && !$self->{eof}) {
            my $left = $end - time;
            die "timeout: head of $path\n" if $left <= 0;
            pump($left, $self);
        }
        die "$path: closed before a response\n" if !$self->{head};
    }
    return $self;
}

sub DESTROY ($self) { delete $open{$self + 0} }

sub close_all ($target) {
    for my $self (grep { defined } values %open) {
        $self->close if $self->{target} eq $target;
    }
}

# Waits until one of the streams has bytes, reads what is there, parses it.
# The number of streams that had some.
sub pump ($seconds, @streams) {
    my ($bits, @by_fd) = ('');
    for my $self (@streams) {
        next if $self->{eof};
        vec($bits, $self->{fd}, 1) = 1;
        $by_fd[$self->{fd}] = $self;
    }
    if (!@by_fd) {
        select undef, undef, undef, $seconds if $seconds > 0;
        return 0;
    }
    my $n = select my $ready = $bits, undef, undef,
        $seconds < 0 ? 0 : $seconds;
    return 0 if $n <= 0;
    $ready = unpack 'b*', $ready;
    $by_fd[pos($ready) - 1]->_readable while $ready =~ /1/g;
    return $n;
}

sub _readable ($self) {
    my $n = sysread $self->{http}{sock}, $self->{in}, 65536,
        length $self->{in};
    return if !defined $n && ($! == EAGAIN || $! == EINTR);
    if (!$n) {
        $self->{eof} = 1;
        $self->{reset} = !defined $n;
    }
    $self->_head or return;
    $self->_unchunk;
    $self->_parse if $self->{text} ne '';
}

sub _head ($self) {
    return 1 if $self->{head};
    my $at = index $self->{in}, "\r\n\r\n";
    return 0 if $at < 0;
    my $text = substr $self->{in}, 0, $at + 4, '';
    $self->{head} = RT::HTTP::parse_head([split /\r\n/, $text]);
    my $headers = $self->{head}{headers};
    $self->{chunked} = ($headers->{'transfer-encoding'} // '') eq 'chunked';
    $self->{length} = $headers->{'content-length'};
    $self->{sse} = ($headers->{'content-type'} // '') =~
        m{^text/event-stream\b} && $self->{head}{status} == 200;
    return 1;
}

# moves bytes of the body from in to text
sub _unchunk ($self) {
    my $got = '';
    if (!$self->{chunked}) {
        $got = $self->{in};
        $self->{in} = '';
        if (defined $self->{length}) {
            $self->{length} -= length $got;
            $self->{done} = 1 if $self->{length} <= 0;
        } elsif ($self->{eof}) {
            $self->{done} = !$self->{reset};
        }
    }
    while ($self->{chunked} && !$self->{done}) {
        if ($self->{chunk} > 2) {
            my $take = $self->{chunk} - 2;
            $take = length $self->{in} if $take > length $self->{in};
            last if !$take;
            $got .= substr $self->{in}, 0, $take, '';
            $self->{chunk} -= $take;
        } elsif ($self->{chunk}) {
            last if length $self->{in} < $self->{chunk};
            substr($self->{in}, 0, $self->{chunk}, '') eq "\r\n"
                or die "no CRLF after a chunk\n";
            $self->{chunk} = 0;
        } else {
            $self->{in} =~ s/\A([0-9a-f]+)\r\n//i or do {
                die "bad chunk\n" if $self->{in} !~ /\A[0-9a-f]*\r?\z/i;
                last;
            };
            my $size = hex $1;
            $self->{chunk} = $size + 2;
            $self->{done} = 1 if $size == 0;
        }
    }
    $self->{raw} .= $got if $self->{keep_raw} || !$self->{sse};
    $self->{text} .= $got if $self->{sse};
}

# HTML standard, 9.2.6.  A CR at the end of what is there waits for the next
# byte, which may be its LF.
sub _parse ($self) {
    my $now = time;
    if ($self->{bom}) {
        return if length $self->{text} < 3
            && "\xef\xbb\xbf" =~ /\A\Q$self->{text}\E/;
        $self->{text} =~ s/\A\xef\xbb\xbf//;
        $self->{bom} = 0;
    }
    my $used = 0;
    while ($self->{text} =~ /\G([^\r\n]*)(?:\r\n|\n|\r(?!\z))/g) {
        $used = pos $self->{text};
        $self->_field($1, $now);
    }
    substr $self->{text}, 0, $used, '';
}

sub _field ($self, $line, $now) {
    if ($line eq '') {
        $self->{id} = $self->{next_id};
        if (defined $self->{data}) {
            chop $self->{data};
            my $event = { id => $self->{id}, data => $self->{data},
                event => $self->{type} eq '' ? 'message' : $self->{type},
                at => $now };
            $self->{count}++;
            if ($self->{on_event}) { $self->{on_event}->($self, $event) }
            else                   { push @{$self->{events}}, $event }
        }
        $self->{data} = undef;
        $self->{type} = '';
        return;
    }
    if ($line =~ /^:/) {
        push @{$self->{comments}}, $now;
        return;
    }
    my ($name, $value) = $line =~ /^([^:]*)(?:: ?(.*))?\z/s;
    $value //= '';
    if ($name eq 'data')     { $self->{data} .= "$value\n" }
    elsif ($name eq 'event') { $self->{type} = $value }
    elsif ($name eq 'id')    { $self->{next_id} = $value if $value !~ /\0/ }
    elsif ($name eq 'retry') { $self->{retry} = $value if $value =~ /^\d+$/ }
}

# pumps until COND or the deadline
sub _until ($self, $seconds, $cond) {
    my $end = time + $seconds;
    while (1) {
        my $value = $cond->();
        return $value if $value || $self->{eof};
        my $left = $end - time;
        return undef if $left <= 0;
        pump($left, $self);
    }
}

sub event ($self, $seconds = 5) {
    $self->_until(RT::scale($seconds), sub { @{$self->{events}} });
    return shift @{$self->{events}};
}

sub wait ($self, $n, $seconds = 5) {
    $self->_until(RT::scale($seconds), sub { @{$self->{events}} >= $n });
    return splice @{$self->{events}}, 0, $n;
}

sub expect ($self, @data) {
    my @got = map { $_->{data} } $self->wait(scalar @data);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return RT::is_deeply(\@got, \@data, 'events of ' . $self->{path});
}

sub none ($self, $seconds = 0.3) {
    $self->_until($seconds, sub { @{$self->{events}} });
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    RT::is(scalar @{$self->{events}}, 0, "nothing comes on $self->{path}");
    RT::diag("got: $_->{event}: $_->{data}") for @{$self->{events}};
    return !@{$self->{events}};
}

sub wait_comment ($self, $seconds = 5) {
    my $n = @{$self->{comments}};
    return $self->_until(RT::scale($seconds),
                         sub { @{$self->{comments}} > $n });
}

sub ended ($self, $seconds = 5) {
    $self->_until(RT::scale($seconds), sub { $self->{done} });
    return $self->{done} || $self->{eof} ? 1 : 0;
}

sub clean ($self) { return $self->{done} ? 1 : 0 }
sub status ($self) { return $self->{head}{status} }
sub header ($self, $name) { return $self->{head}{headers}{lc $name} }
sub comments ($self) { return @{$self->{comments}} }
sub retry ($self) { return $self->{retry} }
sub last_id ($self) { return $self->{id} }
sub raw ($self) { return $self->{raw} }
sub count ($self) { return $self->{count} // 0 }

sub body ($self) {
    $self->ended;
    return $self->{raw};
}

sub close ($self) {
    $self->{eof} = 1;
    delete $open{$self + 0};
    $self->{http}->close;
}

sub reset ($self) {
    $self->{eof} = 1;
    delete $open{$self + 0};
    $self->{http}->reset;
}

1;
