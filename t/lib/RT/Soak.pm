package RT::Soak;

# Everything that a gateway suffers, under load, for as long as is asked; and
# a look at each message of each client.
#
#     my $findings = RT::Soak->new(seed => 1, minutes => 5,
#         source => 'pubsub', ...)->run;
#
# The options and their defaults are %default below.  The plan of faults
# (RT::Soak::Faults) comes from the seed: the same seed, the same plan.  What
# is checked, in the order of doubt:
#
#   streams   each channel's numbers in order, once, none missing but where
#             rt.gap was told (RT::Soak::Client); and rt.gap only where the
#             feed was cut: never from source embedded or stream, from pubsub
#             not by a reload or the death of a worker that does not feed
#   polls     never a step back, never a 304 for what is old
#   feed      live again within LIVE seconds after the last fault
#   clients   nobody is without a message for STARVED seconds while there are
#   nginx     log, sanitizers, memory, CPU, files, workers that do not end
#
# A finding is printed with seed and time and what its client last saw; the
# run ends some seconds later and the directory is kept.

use v5.36;
use File::Path qw(make_path);
use JSON::PP qw(decode_json);
use List::Util qw(max min first);
use Time::HiRes qw(time);
use RT;
use RT::Soak::Net;
use RT::Soak::Ledger;
use RT::Soak::Client;
use RT::Soak::Faults;

my %default = (
    seed => 1, minutes => 5, source => 'pubsub',
    clients => 100, channels => 20, rate => 200, workers => 3, pollers => 20,
    visitors => 10,     # come and go, on channels of their own
    inactive => 6,      # seconds; shorter than the longest stop would be wrong
    retry => 0.1,       # part of what retry: says that is waited
    pace => 1,          # intervals between faults, times this
    off => '',          # faults not to do, 'all' for none at all
    only => '',         # the only ones
    quiet => 0,         # no progress
);

use constant {
    STARVED => 15,          # seconds
    LIVE => 8,
    MEMORY => 32 * 1024,   # KB of a worker's own
    OLD_WORKER => 40,       # seconds that one may take to end
    SHOWN => 20,            # findings
};

sub new ($class, %opt) {
    my %all = (%default, %opt);
    my @odd = grep { !exists $default{$_} } keys %opt;
    die "soak: no such option: @odd\n" if @odd;
    return bless { opt => \%all, %all{qw(seed source)}, findings => 0,
        loop => RT::Soak::Net->new, permitted => 0, delivered => 0, gaps => 0,
        ended => 0, polls => {}, killed => {}, attempts => 0, feed => {},
        cut => undef, old => {}, cpu => {}, rss => 0, log_at => 0,
        log_rest => '', opened => 0 }, $class;
}

sub strict ($self) { return $self->{source} ne 'pubsub' }
sub embedded ($self) { return $self->{source} eq 'embedded' }

# seconds since the start
sub clock ($self) { return time - $self->{start} }

sub tell ($self, $text) {
    $text = sprintf '%8.3f %s', $self->clock, $text;
    print {$self->{trace}} "$text\n";
    RT::note($text) if !$self->{opt}{quiet};
}

sub finding ($self, $text, @trail) {
    $self->{first} //= time;
    return if $self->{findings}++ >= SHOWN;
    my $told = sprintf "FOUND, seed %d, %s, at %.3f s: %s", $self->{seed},
        $self->{source}, $self->clock, $text;
    print {$self->{trace}} join "\n    ", "$told\n", @trail, "\n";
    RT::diag($told);
    RT::diag("    $_") for @trail;
}

# From now until the feed is known to be live again messages may be lost with
# a gap.  $until: when the fault itself is over; $delay: how long it may take
# to be noticed; $pid: another process must feed then.
sub cut ($self, $until, $delay, $pid = 0) {
    return if $self->embedded;
    my $cut = $self->{cut} //= { until => 0, pid => 0 };
    $cut->{until} = max($cut->{until}, $until + $delay);
    $cut->{pid} = $pid if $pid;
}

sub run ($self) {
    my $opt = $self->{opt};
    $self->{random} = RT::Soak::Random->new($self->{seed} * 2 + 1);
    # what a stream keeps Redis reads again at each restart
    my $part = $self->{source} eq 'stream' && $opt->{minutes} > 5 ? 0.1 : 1;
    $self->{ledger} = RT::Soak::Ledger->new($self->{random}, $part,
        sub ($text) { $self->finding($text) });
    $self->{faults} = RT::Soak::Faults->new($self,
        RT::Soak::Random->new($self->{seed} * 2));
    make_path(RT::dir());
    open $self->{trace}, '>', RT::dir() . "/soak-$self->{seed}.log"
        or die "no trace: $!\n";
    $self->{trace}->autoflush(1);
    $self->{start} = time;

    $self->up;
    $self->{start} = time;
    $self->{end} = $self->{start} + 60 * $opt->{minutes};
    $self->tell("seed $self->{seed}, source $self->{source}, "
        . "$opt->{minutes} min, $opt->{clients} clients, "
        . "$opt->{channels} channels, $opt->{rate} messages/s");
    $self->{faults}->begin;
    $self->{tick} = { map { $_ => time } qw(second status sample progress) };
    my $end = sub { time >= $self->{end}
        || $self->{first} && time > $self->{first} + 5 };
    $self->turn(1) until $end->();
    $self->run_until(2, 1, sub { 0 });    # what is still being judged

    $self->{faults}->finish;
    $self->calm if !$self->{first};
    $self->down;
    $self->tell(sprintf 'seed %d: %d findings', $self->{seed},
        $self->{findings});
    return $self->{findings};
}

sub turn ($self, $publish) {
    $self->{loop}->turn(0.01);
    my $now = time;
    my $tick = $self->{tick};
    if ($self->{cut}) { $self->{permitted} = $now + 1 }
    $self->publish($now) if $publish;
    if ($now >= $tick->{status}) {
        $tick->{status} = $now + 0.4;
        $self->ask_status;
    }
    if ($now >= $tick->{second}) {
        $tick->{second} = $now + 1;
        $self->watch_log;
        $self->starved($now);
    }
    if ($now >= $tick->{sample}) {
        $tick->{sample} = $now + 5;
        $self->sample($now);
    }
    if ($now >= $tick->{progress}) {
        $tick->{progress} = $now + 5;
        $self->progress;
    }
}

# runs the loop until COND; undef after the deadline
sub run_until ($self, $seconds, $publish, $cond) {
    my $end = time + RT::scale($seconds);
    while (time < $end) {
        my $value = $cond->();
        return $value if $value;
        $self->turn($publish);
    }
    return $cond->();
}

# nginx, Redis and who uses them

sub http ($self, $more = '') {
    my $opt = $self->{opt};
    my $feed = $self->embedded ? ''
        : "redis %%REDIS%%; source $self->{source}; "
        . 'redis_reconnect 50ms 500ms;';
    return <<"END2";
    rt_hub app { zone 192m; $feed history 2000 10m;
                 inactive $opt->{inactive}s; }
    $more
    server {
        listen 127.0.0.1:%%PORT%% sndbuf=32k;
        keepalive_requests 100000;
        rt_retry 1s; rt_drain 1s; rt_heartbeat 2s; rt_buffer 32k;
        location ~ ^/rt/(?<channel>.+)\$ { rt_subscribe app \$channel; }
        location ~ ^/life/(?<channel>.+)\$ {
            rt_subscribe app \$channel; rt_lifetime 3s; }
        location ~ ^/skip/(?<channel>.+)\$ {
            rt_subscribe app \$channel; rt_slow latest; }
        location = /publish { rt_publish app \$arg_channel; }
        location = /status { rt_status json; }
    }
END2
}

sub up ($self) {
    my ($opt, $loop) = @$self{qw(opt loop)};
    if (!$self->embedded) {
        $self->{redis} = RT::Redis->new(args => [
            'client-output-buffer-limit' => 'pubsub 0 0 0', 'hz' => 20,
            $self->{source} eq 'stream'
                ? (appendonly => 'yes', appendfsync => 'always',
                   'auto-aof-rewrite-percentage' => 0) : ()]);
    }
    my $ngx = $self->{ngx} = RT::Nginx->new(workers => $opt->{workers},
        redis => $self->{redis}, http => $self->http);
    $self->{port} = $ngx->port;
    $self->{files} = $self->files($ngx->pid);

    my @names = map { "c$_" } 1 .. $opt->{channels};
    $self->{channels} = \@names;
    $self->{visited} = [map { "v$_" } 1 .. 5];
    if (!$self->embedded) {
        my $port = $self->{redis}->port;
        $self->{publisher} = RT::Soak::Resp->new($loop, $port);
        $self->{observer} = RT::Soak::Resp->new($loop, $port,
            on_push => sub ($reply, $now) { $self->observed($reply, $now) },
            on_up => sub ($resp) {
                $resp->write(RT::RESP::encode(PSUBSCRIBE => '[cv]*'));
            }) if $self->{source} eq 'pubsub';
    }
    # all of an embedded hub's, else the last three: published by HTTP
    my @posted = $self->embedded ? (@names, @{$self->{visited}})
        : @names > 3 ? @names[-3 .. -1] : ();
    $self->{posters}{$_} = RT::Soak::Request->new($loop, $self->{port})
        for @posted;

    $self->{clients} = [map { $self->client($_) } 0 .. $opt->{clients} - 1];
    $self->{pollers} = [map { RT::Soak::Poller->new(soak => $self,
        slow => $_ % 2, channel => $names[$_ % @names]) } 0 .. $opt->{pollers} - 1];
    $self->visitor($_) for 1 .. $opt->{visitors};

    $self->{tick} = { map { $_ => time + 1e9 } qw(second sample progress) };
    $self->{tick}{status} = 0;
    $self->run_until(20, 0, sub {
        ($self->{feed}{state} // '') =~ /^(?:live|embedded)$/
            && !grep { !$_->{opened} } @{$self->{clients}};
    }) or $self->finding('the clients are not all connected at the start');
    # pub/sub: what is published before Redis has subscribed is not missed
    $self->run_until(10, 0, sub {
        my $n = eval { $self->{redis}->cmd(PUBSUB => 'CHANNELS', 'c*') };
        return $n && @$n == @names;
    }) if $self->{source} eq 'pubsub';
}

# the first ones read one channel each, so that each has somebody
sub client ($self, $i) {
    my $random = $self->{random};
    my $names = $self->{channels};
    my %args = (soak => $self, name => "c$i", path => '/rt/',
        channels => [$i < @$names ? $names->[$i] : $random->pick(@$names)]);
    my $kind = $i < @$names ? 0 : $random->next;
    if ($kind > 0.95)    { @args{qw(path skips rcvbuf)} = ('/skip/', 1, 4096) }
    elsif ($kind > 0.88) { $args{rcvbuf} = 4096 }
    elsif ($kind > 0.78) { $args{path} = '/life/' }
    elsif ($kind > 0.72) { $args{by_argument} = 1 }
    elsif ($kind > 0.50) {
        my %set = map { $random->pick(@$names) => 1 } 1 .. 3;
        $args{channels} = [sort keys %set];
    }
    my $client = RT::Soak::Client->new(%args);
    $self->dawdle($client) if $args{rcvbuf};
    return $client;
}

# reads for a while, then does not
sub dawdle ($self, $client) {
    my $random = $self->{random};
    my $loop = $self->{loop};
    $loop->at(time + 1 + 2 * $random->next, sub ($now) {
        return if $client->{gone} || $self->{over};
        $client->pause(1);
        $loop->at($now + 0.5 + 3 * $random->next, sub ($then) {
            $client->pause(0);
            $self->dawdle($client);
        });
    });
}

# stays, goes, comes back as the same or as another
sub visitor ($self, $i) {
    my $random = $self->{random};
    my $loop = $self->{loop};
    my $client = RT::Soak::Client->new(soak => $self, name => "visitor$i",
        path => '/rt/', channels => [$random->pick(@{$self->{visited}})]);
    $self->{visitors}[$i - 1] = $client;
    my ($stay, $go);
    $stay = sub ($now) {
        $loop->at($now + 1 + 5 * $random->next, sub ($then) {
            $client->leave($random->next < 0.5);
            my $away = 0.3 + 11 * $random->next;
            $loop->at($then + $away, sub ($t) {
                return if $self->{over};
                $client->{gone} = 0;
                if ($random->next < 0.4) {
                    $client->anew;
                } elsif ($self->{source} eq 'pubsub'
                         && $away > $self->{opt}{inactive} - 1.5) {
                    $client->{excused} = $t + 10;
                }
                $client->start;
                $stay->($t);
            });
        });
    };
    $stay->(time);
}

# publishing

sub publish ($self, $now) {
    my $due = int(($now - $self->{start}) * $self->{opt}{rate});
    my $n = 0;
    while ($self->{attempts} < $due && $n++ < 100) {
        $self->{attempts}++;
        my $random = $self->{random};
        $self->publish_to($random->next < 0.05
            ? $random->pick(@{$self->{visited}})
            : $random->pick(@{$self->{channels}}), $now);
    }
    # what was not possible is not made up for
    $self->{attempts} = $due if $self->{attempts} < $due - 1000;
}

sub publish_to ($self, $channel, $now) {
    my $ledger = $self->{ledger};
    my $poster = $self->{posters}{$channel};
    return $self->publish_by_http($poster, $channel, $now) if $poster;

    my $redis = $self->{publisher};
    return 0 if !$redis->open || $redis->waiting > 1000;
    my ($n, $data) = $ledger->compose($channel, $now);
    my @command = $self->{source} eq 'stream' ? (XADD => $channel, '*', 'data')
        : (PUBLISH => $channel);
    $redis->say(sub ($reply, $t) {
        return if !defined $reply;
        return $ledger->published($channel, $n, $t) if !ref $reply;
        $ledger->refused($channel, $n);
        $self->finding("Redis says: $$reply") if $$reply !~ /^LOADING/;
    }, @command, $data);
    return 1;
}

sub publish_by_http ($self, $poster, $channel, $now) {
    my $ledger = $self->{ledger};
    return 0 if $poster->busy || $poster->{held};
    my ($n, $data) = $ledger->compose($channel, $now);
    $poster->{asked} = $now;
    $poster->ask("POST /publish?channel=$channel HTTP/1.1\r\nHost: soak\r\n"
        . 'Content-Length: ' . length($data) . "\r\n\r\n$data",
        sub ($status, $headers, $body, $t) {
            $self->{posts}{$status}++;
            if    ($status == 202) { $ledger->published($channel, $n, $t) }
            elsif ($status == 503) { $ledger->refused($channel, $n) }
            elsif ($status && $status != 502) {
                $self->finding("$channel $n: publishing answered $status");
            } elsif (!$self->embedded) {
                # it may be on its way to Redis: nothing may overtake it
                $poster->{held} = 1;
                $self->settle(sub { $poster->{held} = 0 });
            }
        });
    return 1;
}

# what was sent to Redis by others until now is done after some rounds
sub settle ($self, $done, $rounds = 4) {
    $self->{loop}->at(time + 0.05, sub ($now) {
        $self->{publisher}->say(sub ($reply, $t) {
            my $left = defined $reply && !ref $reply ? $rounds - 1 : 4;
            return $done->() if !$left;
            $self->settle($done, $left);
        }, 'PING');
    });
}

sub observed ($self, $reply, $now) {
    return if ref $reply ne 'ARRAY' || $reply->[0] ne 'pmessage';
    my ($channel, $n) = $self->{ledger}->read($reply->[3]);
    if (!defined $n) {
        $self->finding('Redis gives what was not published');
    } else {
        $self->{ledger}->published($channel, $n, $now);
        my $last = $self->{observed}{$channel} // 0;
        $self->finding("Redis gives $channel $n after $last") if $n <= $last;
        $self->{observed}{$channel} = $n;
    }
}

# looking

sub ask_status ($self) {
    my $request = RT::Soak::Request->new($self->{loop}, $self->{port});
    my $sent = time;
    $request->ask("GET /status HTTP/1.1\r\nHost: soak\r\n"
        . "Connection: close\r\n\r\n", sub ($status, $headers, $body, $now) {
            return if $status != 200 || $sent < ($self->{feed}{asked} // 0);
            my $hub = eval { decode_json($body)->{hubs}[0] };
            return $self->finding("the status is no JSON: $body") if !$hub;
            $self->{hub} = $hub;
            $self->{feed} = { %{$hub->{feed}}, asked => $sent };
            my $cut = $self->{cut} or return;
            return if $hub->{feed}{state} ne 'live' || $sent < $cut->{until}
                || $hub->{feed}{worker} == $cut->{pid};
            $self->{cut} = undef;
            $self->{permitted} = $now + 1.5;
        });
    $self->{loop}->at($sent + 3, sub ($now) { $request->drop });
}

sub watch_log ($self) {
    open my $fh, '<:raw', $self->{ngx}->dir . '/logs/error.log' or return;
    seek $fh, $self->{log_at}, 0;
    local $/;
    my $text = <$fh> // '';
    $self->{log_at} += length $text;
    $text = $self->{log_rest} . $text;
    $self->{log_rest} = $text =~ s/([^\n]+)\z// ? $1 : '';
    for my $line ($text =~ /^(.*(?:\[(?:alert|emerg|crit)\]|exited on signal
                              |Sanitizer|runtime\ error).*)$/gmx) {
        if ($line =~ /soak_broken/) { $self->{refused}++; next }
        next if $line =~ /process (\d+) exited on signal 9/
            && $self->{killed}{$1};
        next if $line =~ /was locked by (\d+)/ && $self->{killed}{$1};
        $self->finding("in the log: $line");
    }
    # slow to be born: the old feeder does not wait for ever; but that is rare
    if ($text =~ /the feed was not handed over/) {
        $self->{kept}++;
        $self->cut(time, 0.5);
        $self->{permitted} = time + 1;
        $self->tell('a hand-over failed');
    }
    for my $line ($text =~ /^(.*overtaken by the log.*)$/gm) {
        $self->tell($line);
    }
}

# Who has not got what was published so long ago?
sub starved ($self, $now) {
    my $time = $now - RT::scale(STARVED);
    for my $client (@{$self->{clients}}) {
        next if $client->{rcvbuf} || $client->{since} > $time
            && $client->{connects} == 1;
        my $what = $client->behind($time) or next;
        next if ($client->{heard} // 0) > $time && @{$client->{channels}} > 1
            && !$self->strict;
        $client->finding("nothing for long: $what");
    }
    for my $channel (keys %{$self->{posters}}) {
        my $poster = $self->{posters}{$channel};
        next if !$poster->busy || $poster->{asked} > $time;
        $self->finding("publishing to $channel is not answered");
        $poster->forget($now);
    }
}

sub files ($self, $pid) {
    opendir my $dh, "/proc/$pid/fd" or return 0;
    return scalar(my @all = readdir $dh) - 2;
}

sub sample ($self, $now) {
    my $ngx = $self->{ngx};
    my %old = map { $_ => 1 } $ngx->old_workers;
    for my $pid (keys %old) {
        $self->{old}{$pid} //= $now;
        next if $now - $self->{old}{$pid} < RT::scale(OLD_WORKER);
        $self->finding("worker $pid does not end");
        $self->{old}{$pid} = $now + 1e9;
    }
    for my $pid ($ngx->workers, keys %old) {
        my $rss = $ngx->rss($pid);
        $self->{rss} = $rss if $rss > $self->{rss};
        $self->finding("worker $pid has $rss KB")
            if $rss > MEMORY && !RT::asan() && !$self->{fat}{$pid}++;
        my @stat = split / /, RT::slurp("/proc/$pid/stat") =~ s/^.*\) //sr;
        next if @stat < 13;
        my $ticks = $stat[11] + $stat[12];
        my $last = $self->{cpu}{$pid} // [$ticks, $now, 0];
        my $share = $now > $last->[1]
            ? ($ticks - $last->[0]) / 100 / ($now - $last->[1]) : 0;
        my $hot = $share > 0.9 ? $last->[2] + 1 : 0;
        $self->finding("worker $pid is busy all the time") if $hot == 3;
        $self->{cpu}{$pid} = [$ticks, $now, $hot];
    }
}

sub progress ($self) {
    my $ledger = $self->{ledger};
    my $open = grep { $_->{head} } @{$self->{clients}};
    $self->tell(sprintf '%d published, %d delivered, %d gaps; %d open, %d '
        . 'ended; polls %s; feed %s; %d faults; worker at most %d KB',
        $ledger->{published}, $self->{delivered}, $self->{gaps}, $open,
        $self->{ended}, join(' ', map { "$_:$self->{polls}{$_}" }
            sort keys %{$self->{polls}}), $self->{feed}{state} // '?',
        $self->{faults}{done}, $self->{rss});
}

# With no more faults: live soon, everybody up to date, nothing left over.

sub feed_live ($self) {
    return !$self->{cut} && $self->{feed}{state} eq
        ($self->embedded ? 'embedded' : 'live');
}

# everybody has what was published by then; the first who has not
sub late ($self, $time) {
    for my $client (@{$self->{clients}}) {
        next if $client->{gone};
        my $what = $client->behind($time) or next;
        return ($client, $what);
    }
    return;
}

sub calm ($self) {
    $self->tell('calm');
    my $asked = time;
    $self->run_until(LIVE, 1, sub { $self->feed_live
        && $self->{feed}{asked} > $asked })
        or return $self->finding('the feed is not live again: '
            . ($self->{feed}{state} // 'no status'));
    $self->run_until(10, 1, sub { !grep { !$_->{head}
        && ($_->{opened} // 0) < $asked } @{$self->{clients}} })
        or $self->finding('there are clients that can not connect');
    $self->{over} = 1;
    $_->pause(0) for grep { $_->open } @{$self->{clients}};

    # the last ones, which everybody must get
    for my $channel (@{$self->{channels}}) {
        $self->run_until(5, 0, sub { $self->publish_to($channel, time) })
            or $self->finding("$channel can't be published to");
    }
    $self->run_until(5, 0, sub {
        !grep { $_->busy } values %{$self->{posters}} });
    $self->run_until(5, 0, sub { !$self->{publisher}->waiting })
        if $self->{publisher};
    my $time = time;
    my @late;
    $self->run_until(15, 0, sub { !(@late = $self->late($time)) })
        or $late[0]->finding("not up to date: $late[1]");
    $self->last_look;
    $self->run_until(1, 0, sub { 0 });     # for what should not come
    $self->tell($self->{ledger}->unknown . ' messages of unknown fate');
}

sub last_look ($self) {
    if ($self->{source} eq 'stream') { $self->streams }
    my @here = grep { $_->{head} } @{$self->{clients}},
        @{$self->{visitors} // []};
    $_->leave for grep { !$_->{head} } @{$self->{visitors} // []};
    my $asked = time;
    my $open = @here;
    $self->run_until(5, 0, sub {
        $self->{feed}{asked} > $asked
            && $self->{hub}{streams}{sse}{open} == grep { $_->{head} } @here;
    }) or $self->finding("the status has $self->{hub}{streams}{sse}{open} "
        . "streams open, there are $open");
    # two for each worker, of which there may be others now
    my ($ngx, $files) = ($self->{ngx});
    $self->run_until(20, 0, sub { !$ngx->old_workers })
        or $self->finding('old workers are left: ' . join ' ',
            $ngx->old_workers);
    $self->run_until(5, 0, sub {
        ($files = $self->files($ngx->pid)) <= $self->{files} + 6;
    }) or $self->finding("the master has $files open files, $self->{files} "
        . 'at first');
    my ($kept, $all) = ($self->{kept} // 0, $self->{faults}{reloads} // 0);
    $self->finding("of $all reloads $kept did not hand over")
        if $kept > 2 + $all / 8 && !RT::asan();
    $self->finding("evicted: $self->{hub}{evicted}") if $self->{hub}{evicted};
    $self->finding("dropped: $self->{hub}{messages}{dropped}")
        if $self->{hub}{messages}{dropped};
    if ($self->{source} eq 'pubsub') {
        my @left = grep { /^rt\.cut/ }
            @{$self->{redis}->cmd(PUBSUB => 'CHANNELS')};
        $self->finding("left of a hand-over: @left") if @left;
    }
}

# what is in the streams was published, whatever was answered
sub streams ($self) {
    my $ledger = $self->{ledger};
    for my $channel (@{$self->{channels}}, @{$self->{visited}}) {
        my ($from, $last) = ('-', 0);
        while (1) {
            my $entries = $self->{redis}->cmd(XRANGE => $channel, $from, '+',
                COUNT => 500);
            for my $entry (@$entries) {
                my ($of, $n) = $ledger->read($entry->[1][1]);
                $self->finding("the stream $channel has $n after $last")
                    if $n <= $last;
                $last = $n;
                $ledger->published($channel, $n, time);
            }
            last if @$entries < 500;
            $from = "($entries->[-1][0]";
        }
        my $state = $ledger->{channels}{$channel}{state} // [];
        my $missing = grep { ($state->[$_] // 0) == 1 } $last + 1 .. $#$state;
        $self->finding("$channel: Redis has lost $missing") if $missing;
    }
    my @late = $self->late(time);
    $late[0]->finding("not up to date: $late[1]") if @late;
}

sub down ($self) {
    $self->{over} = 1;
    $self->progress;
    $self->watch_log;
    $_->leave for @{$self->{clients}}, grep { defined }
        @{$self->{visitors} // []};
    $_->leave for @{$self->{pollers}};
    $_->drop for values %{$self->{posters} // {}};
    for my $name (qw(publisher observer)) {
        $self->{$name}->close if $self->{$name};
    }
    my $ngx = $self->{ngx};
    $ngx->allow(qr/soak_broken/, qr/process (??{ $self->killed_pids }) exited/,
        qr/was locked by (??{ $self->killed_pids })/);
    $self->finding('nginx does not end cleanly') if !$ngx->stop(20);
    $self->{redis}->stop if $self->{redis};
}

sub killed_pids ($self) {
    return '(?:' . join('|', 'none', keys %{$self->{killed}}) . ')';
}

1;
