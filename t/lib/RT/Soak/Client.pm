package RT::Soak::Client;

# An event stream as a browser has it, and what it must see: of each channel
# the numbers in order, each once, none missing unless rt.gap said so.
#
#     RT::Soak::Client->new(soak => $soak, name => 'c7', path => '/rt/',
#         channels => ['a', 'b'], ...);
#
# Options: rcvbuf (bytes), by_argument (the cursor goes into the query),
# skips (rt_slow latest: such a gap is allowed), once (not opened again),
# id, and places (of another client: goes on from there).

use v5.36;
use Time::HiRes qw(time);
our @ISA = ('RT::Soak::Conn');

sub new ($class, %args) {
    my $self = bless {
        loop => $args{soak}{loop}, id => '', trail => [], connects => 0,
        places => {}, excused => 0, %args,
    }, $class;
    $self->{places}{$_} //= {} for @{$self->{channels}};
    $self->start;
    return $self;
}

sub start ($self) {
    my $soak = $self->{soak};
    @$self{qw(again text head done)} = (0, '', 0, 0);
    $self->{need} = 0;
    $self->{connects}++;
    $self->{since} = time;
    $self->connect($soak->{port}, $self->{rcvbuf} // 0);
    my $path = $self->{path} . join ',', @{$self->{channels}};
    my $cursor = '';
    if ($self->{id} ne '') {
        if ($self->{by_argument}) { $path .= "?last_event_id=$self->{id}" }
        else { $cursor = "Last-Event-ID: $self->{id}\r\n" }
    } else {
        # nothing is known: it begins anew
        $self->{places}{$_} = {} for @{$self->{channels}};
    }
    $self->note("connects, $self->{id}");
    $self->write("GET $path HTTP/1.1\r\nHost: soak\r\n"
        . "Accept: text/event-stream\r\n$cursor\r\n");
}

# what it forgets when it is another visitor
sub anew ($self) {
    $self->{id} = '';
    $self->{places}{$_} = {} for @{$self->{channels}};
}

sub note ($self, $text) {
    my $trail = $self->{trail};
    shift @$trail if @$trail >= 24;
    push @$trail, sprintf '%.3f %s', time - $self->{soak}{start}, $text;
}

sub finding ($self, $text) {
    $self->{soak}->finding("client $self->{name} "
        . "($self->{path}@{[join ',', @{$self->{channels}}]}): $text",
        @{$self->{trail}});
}

sub lost ($self, $now) {
    $self->{head} = 0;
    $self->note('ended');
    return if $self->{gone};
    my $soak = $self->{soak};
    $soak->{ended}++;
    my $wait = ($self->{retry} // 1000) / 1000 * $soak->{opt}{retry};
    $self->{again} = $now + $wait;
    $self->{loop}->at($now + $wait, sub ($t) {
        $self->start if !$self->{gone} && !$self->open && $self->{again};
    });
}

# by its own will; comes back as after any end
sub vanish ($self, $reset, $now) {
    $self->drop($reset);
    $self->lost($now);
}

sub leave ($self, $reset = 0) {
    $self->{gone} = 1;
    $self->{head} = 0;
    $self->note('leaves');
    $self->drop($reset);
}

sub input ($self, $now) {
    return if length $self->{in} < $self->{need};
    $self->{need} = 0;
    if (!$self->{head}) {
        my $end = index $self->{in}, "\r\n\r\n";
        return if $end < 0;
        my $head = substr $self->{in}, 0, $end + 4, '';
        if ($head !~ m{\AHTTP/1.1 200 } || $head !~ m{text/event-stream}) {
            $self->finding("answered by $head");
            return;
        }
        $self->{head} = 1;
        $self->{opened} = $now;
    }
    while (1) {
        my $line = index $self->{in}, "\r\n";
        last if $line < 0;
        my $size = hex substr $self->{in}, 0, $line;
        my $whole = $line + 4 + $size;
        if (length $self->{in} < $whole) {
            $self->{need} = $whole;
            last;
        }
        $self->{text} .= substr $self->{in}, $line + 2, $size;
        substr $self->{in}, 0, $whole, '';
        if (!$size) {
            $self->drop;
            $self->events($now);
            $self->note('clean end');
            $self->lost($now) if !$self->{gone};
            return;
        }
    }
    $self->events($now) if $self->{text} ne '';
}

sub events ($self, $now) {
    my ($pos, $end) = (0);
    my $text = $self->{text};
    while (($end = index $text, "\n\n", $pos) >= 0) {
        my ($data, $event, $id);
        for my $line (split /\n/, substr($text, $pos, $end - $pos), -1) {
            if    ($line =~ /\Adata: ?/)  { $data .= substr($line, $+[0]) . "\n" }
            elsif ($line =~ /\Aid: ?/)    { $id = substr $line, $+[0] }
            elsif ($line =~ /\Aevent: ?/) { $event = substr $line, $+[0] }
            elsif ($line =~ /\Aretry: ?(\d+)\z/) { $self->{retry} = $1 }
            elsif ($line !~ /\A(?::.*)?\z/) {
                $self->finding("an odd line: '$line'");
            }
        }
        $pos = $end + 2;
        $self->{id} = $id if defined $id && $id ne '';
        if (!defined $data) {
            $self->place($now) if defined $id;
            next;
        }
        chop $data;
        if (($event // '') eq 'rt.gap') { $self->gap($data, $now) }
        else                            { $self->message($data, $now) }
    }
    $self->{text} = substr $text, $pos;
}

# An id without a message: a place from which on nothing is missed.  Of
# several channels it is not said whose.
sub place ($self, $now) {
    $self->note("place, $self->{id}");
    my @channels = @{$self->{channels}};
    return if @channels > 1;
    my $place = $self->{places}{$channels[0]};
    $place->{from} = $self->{soak}{ledger}->sent($channels[0]) + 1
        if !$place->{last} && !$place->{from};
    # while it waits in a socket, time goes by
    $self->{last_at} = $self->{since};
}

sub message ($self, $data, $now) {
    my $soak = $self->{soak};
    my $ledger = $soak->{ledger};
    $soak->{delivered}++;
    my ($channel, $n) = $ledger->read($data);
    if (!defined $n) {
        $self->finding('a message that is not as it was published: '
            . substr($data, 0, 60) =~ s/[^ -~]/./gr);
        return;
    }
    $self->note("$channel $n, $self->{id}");
    my $place = $self->{places}{$channel};
    if (!$place) {
        $self->finding("a message of $channel, which it has not asked for");
        return;
    }
    $ledger->saw($channel, $n, $now);
    my $last = $place->{last};
    if ($last && $n <= $last) {
        $self->finding($n == $last ? "$channel $n is repeated"
            : "$channel $n after $last: out of order or repeated");
        return;
    }
    my $from = $last ? $last + 1 : $place->{from} // $n;
    $from = $place->{gap} if ($place->{gap} // 0) > $from;
    for my $k ($from .. $n - 1) {
        $ledger->missed($self, $channel, $k);
    }
    $place->{last} = $n;
    $place->{gap} = 0;
    $self->{last_at} = $ledger->sent_at($channel, $n);
    $self->{heard} = $now;
}

# that it was published turned out later, perhaps
sub lost_one ($self, $channel, $n) {
    $self->finding("$channel $n was published and never arrived, and no gap "
        . 'was told');
}

sub gap ($self, $data, $now) {
    my $soak = $self->{soak};
    my ($channel, $reason)
        = $data =~ /\A\{"channel":"([^"]*)","reason":"([^"]*)"\}\z/;
    $self->note("gap $data, $self->{id}");
    my $place = defined $channel && $self->{places}{$channel};
    if (!$place) {
        $self->finding("an odd gap: $data");
        return;
    }
    # what is sent from now on comes after the gap
    $place->{gap} = $soak->{ledger}->sent($channel) + 1;
    $soak->{gaps}++;
    return if $self->{skips} && $reason eq 'slow client';
    return if $self->{excused} > $now;
    my $since = ($self->{last_at} // $self->{since}) - 0.5;
    my $may = $reason eq 'feed' && !$soak->strict;
    return if $may && $soak->{permitted} >= $since;

    # that a hand-over failed is read in the log, after this
    my @trail = @{$self->{trail}};
    $self->{loop}->at($now + 1.5, sub ($then) {
        return if $may && $soak->{permitted} >= $since;
        local $self->{trail} = \@trail;
        $self->finding(sprintf "a gap of %s, '%s', at %.3f, though nothing "
            . 'was cut since %.3f', $channel, $reason, $now - $soak->{start},
            $since - $soak->{start});
    });
}

# Has it got what was known to be published by then?  The channel for which
# it has not.
sub behind ($self, $time) {
    my $ledger = $self->{soak}{ledger};
    for my $channel (@{$self->{channels}}) {
        my $place = $self->{places}{$channel};
        my $told = $ledger->told_by($channel, $time);
        my $have = $place->{last} // 0;
        return "$channel: has $have, $told was published" if $have < $told;
    }
    return;
}


package RT::Soak::Poller;

# A conditional poll, again and again.  Its view never goes back, and is never
# confirmed when somebody else has seen a newer one for a second.

use v5.36;
use Time::HiRes qw(time);

sub new ($class, %args) {
    my $self = bless { n => 0, etag => '', etag_n => 0, %args }, $class;
    $self->{request} = RT::Soak::Request->new($self->{soak}{loop},
        $self->{soak}{port});
    $self->ask(time);
    return $self;
}

sub ask ($self, $now) {
    return if $self->{gone};
    my $since = $self->{etag} ne '' ? "If-None-Match: $self->{etag}\r\n" : '';
    my $sent = time;
    $self->{request}->ask("GET /rt/$self->{channel} HTTP/1.1\r\nHost: soak\r\n"
        . "$since\r\n", sub ($status, $headers, $body, $t) {
            $self->{soak}{polls}{$status}++;
            $self->answer($status, $headers, $body, $sent, $t) if $status;
            # some come back when what they have is old
            my $wait = $self->{slow} ? 1.2 + 2 * rand : 0.1 + 0.3 * rand;
            $self->{soak}{loop}->at($t + $wait,
                sub ($at) { $self->ask($at) });
        });
}

sub leave ($self) {
    $self->{gone} = 1;
    $self->{request}->drop;
}

sub answer ($self, $status, $headers, $body, $sent, $now) {
    my $soak = $self->{soak};
    my ($ledger, $channel) = ($soak->{ledger}, $self->{channel});
    # While Redis does not answer nobody reads on in a stream: what it took
    # just before is not known to the node yet, but to who published it, and to
    # a client that was filled.
    my $held = $soak->{source} eq 'stream'
        && ($soak->{permitted} >= $sent - 3
            || $soak->{faults}{redis_until} > $sent - 1.5);
    my $newest = $held ? 0 : $ledger->seen_by($channel, $sent - 1);
    if (!$held && ($soak->{permitted} < $sent - 3
                   || $soak->{source} eq 'embedded'))
    {
        my $told = $ledger->told_by($channel, $sent - 1.5);
        $newest = $told if $told > $newest;
    }
    my $finding = sub ($text) {
        $soak->finding(sprintf 'a poll of %s that has %d (%s, of %d): %s; '
            . '%d is known for longer than a second', $channel, $self->{n},
            $self->{etag}, $self->{etag_n}, $text, $newest);
    };
    if ($status == 304) {
        $finding->('a false 304') if $self->{etag_n} < $newest;
        $finding->('a 304 for the older one') if $self->{etag_n} < $self->{n};
    } elsif ($status == 200) {
        my ($of, $n) = $ledger->read($body);
        if (!defined $n || $of ne $channel) {
            $finding->('a body that is not as it was published');
            return;
        }
        my $etag = $headers->{etag};
        $finding->("$n, a step back") if $n < $self->{n};
        $finding->("$n, which is old") if $n < $newest;
        $self->{n} = $n;
        @$self{qw(etag etag_n)} = ($etag, $n) if defined $etag;
    } elsif ($status == 204) {
        $finding->('a 204') if $self->{n} || $newest;
        @$self{qw(etag etag_n)} = ($headers->{etag} // '', 0);
    } elsif ($status == 503) {
        $finding->('a 503') if $self->{n};
    } else {
        $finding->("status $status");
    }
}

1;
