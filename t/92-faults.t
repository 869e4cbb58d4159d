# Workers that are killed at each fault point of the module, NGX_RT_FAULT, with
# each source, under load and with memory short: the next one goes on at once,
# and clients that reconnect see what the source promises.
#
# RT_SOURCE=stream, RT_POINT=relist: only that source, those points.
#
# A zone of 1m, hub app, is what most deaths are in; its channels are watched,
# too.  Hub calm has memory enough for all that its clients may miss.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use List::Util qw(first max sum0);
use Time::HiRes qw(time);
use RT;
use RT::Asan;
use RT::Storm;

# What the traffic here doesn't come to, by source.  All other points must be
# reached.

my %never = (
    'stuck' => {
        map({ $_ => 'only if memory was damaged' }
            qw(pubsub embedded stream)) },
    'clear: floor' => {
        embedded => 'what is too large is 413 and changes nothing' },
    'place: tag' => {
        pubsub => 'places are of streams',
        embedded => 'places are of streams' },
    'want: taken' => { embedded => 'nobody has to subscribe' },
    'want: flagged' => { embedded => 'nobody has to subscribe' },
    'take: term' => { embedded => 'nobody feeds' },
    'live: session' => { embedded => 'nobody feeds' },
    'cut: term' => {
        embedded => 'nobody feeds',
        stream => 'the places are in the zone, nothing is handed over' },
);

# A repair needs something to repair, of which it dies as well.

my %first = (
    'recover: scanned' => 'write: body',
    'recover: finished' => 'commit: head',
    'recover: entries' => 'entry: open',
    'relist: one' => 'link: latest',
    'relist: ends' => 'link: older',
    'rebuild: buckets' => 'relink: newer',
    'rebuild: sums' => 'drop: one',
);

# What else is to be done to get there, every second.

my %how = (
    'take: term' => \&kill_feeder,
    'live: session' => \&kill_feeder,
    'cut: term' => sub ($s) { $s->{ngx}->signal('HUP') },
);

my @sources = grep { !$ENV{RT_SOURCE} || $_ eq $ENV{RT_SOURCE} }
    qw(pubsub embedded stream);
my $only = $ENV{RT_POINT} // '';

need(qw(redis-server));
if (asan() && $ENV{RT_NGINX}) {
    plan(skip_all => "no fault points in $ENV{RT_NGINX}")
        if !RT::Asan::faults($ENV{RT_NGINX});
} else {
    need(qw(make clang));
    my $nginx = RT::Asan::build();
    BAIL_OUT('no nginx with fault points') if !$nginx;
    %ENV = (%ENV, RT::Asan::env($nginx));
}

my @points = points();

# of the sources, so that none is forgotten

sub points {
    my (@names, $calls);
    for my $file (glob root() . '/ngx_rt_module/*.c') {
        my $text = slurp($file);
        push @names, $text =~ /\bNGX_RT_FAULT\("([^"]+)"\);/g;
        $calls += () = $text =~ /\bNGX_RT_FAULT\(/g;
    }
    is(scalar @names, $calls, scalar @names . ' fault points');
    my %seen;
    is(join(', ', grep { $seen{$_}++ } @names), '', 'each has its own name');
    is(join(', ', grep { !$seen{$_} } map { sort keys %$_ }
                  \%never, \%first, \%how), '',
        'what is said about them is of one that there is');
    return @names;
}

# $s: one nginx, its Redis, its clients
sub up ($source) {
    my $redis = $source eq 'embedded' ? undef : RT::Redis->new;
    my $from = { pubsub => 'redis %%REDIS%%;', embedded => '',
                 stream => 'redis %%REDIS%%; source stream;' }->{$source};
    $from .= ' redis_reconnect 10ms 50ms;' if $redis;
    my $pattern = $source eq 'pubsub' ? 'subscribe x*;' : '';
    my $s = { source => $source, redis => $redis, n => 0, killed => 0,
              file => dir() . "/fault-$source", asked => [], took => [] };
    $s->{ngx} = RT::Nginx->new(redis => $redis, workers => 2,
        env => { RT_FAULT => $s->{file} },
        allow => [qr/exited on signal 9/, qr/zone "rt_hub:\S+ was locked by/],
        http => <<"END", server => <<'END2');
    rt_hub app { zone 1m; history 8; $from $pattern }
    rt_hub calm { zone 8m; history 64; $from }
    rt_drain 200ms;
    client_max_body_size 1m;
    client_body_buffer_size 256k;
    keepalive_requests 1000000;
END
    location ~ ^/app/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location ~ ^/calm/(?<channel>\w+)$ { rt_subscribe calm $channel; }
    location ~ ^/publish/app/(?<channel>\w+)$ { rt_publish app $channel; }
    location ~ ^/publish/calm/(?<channel>\w+)$ { rt_publish calm $channel; }
    location = /status { rt_status json; }
END2
    $s->{storm} = RT::Storm->new($s->{ngx}, path => '/', each => 3,
        rate => 120, retry => 20,
        channels => [map { ("app/a$_", "calm/k$_") } 1 .. 4],
        body => sub ($n) { "$n " . chr(97 + $n % 26) x ($n * 7919 % 1500) },
        publish => sub ($channel, $body) { publish($s, [$channel, $body]) },
    )->open;
    # nothing arrives before the feed is live
    wait_for { my $hubs = status($s);
        @$hubs && !grep { $_->{feed}{state} !~ /live|embedded/ } @$hubs } 5,
        'live';
    return $s;
}

sub status ($s) {
    return eval { decode_json(get($s->{ngx}, '/status', timeout => 1)->body)
        ->{hubs} } // [];
}

# responses to [METHOD => PATH, body => ...]..., over a connection that is kept
# for as long as its worker lives; dies when that ends
sub ask ($s, @requests) {
    my $http = $s->{http} // RT::HTTP->new($s->{ngx}, timeout => 2);
    $s->{http} = undef;
    $http->send(@$_) for @requests;
    my @r = map { $http->read // die "closed\n" } @requests;
    $s->{http} = $http;
    return @r;
}

# [HUB/CHANNEL, DATA]...: true when all are taken
sub publish ($s, @messages) {
    if (!$s->{redis}) {
        return !grep { $_->status != 202 } ask($s,
            map { [POST => "/publish/$_->[0]", body => $_->[1]] } @messages);
    }
    my @commands = map {
        my $name = $_->[0] =~ s{^.*/}{}r;
        $s->{source} eq 'stream' ? [XADD => $name, '*', data => $_->[1]]
                                 : [PUBLISH => $name, $_->[1]];
    } @messages;
    return !grep { ref eq 'RT::Error' } $s->{redis}->pipeline(@commands);
}

# Some channels more, each with a latest message that has to be kept, until
# others are evicted for it; large ones, by which the log comes round.
sub squeeze ($s) {
    my $n = ++$s->{n};
    push @{$s->{asked}}, "calm/w$n";
    my @names = map { "app/x$_" } $n % 2 ? $n : (), 'large';
    eval { ask($s, map { [GET => "/$_"] } "calm/w$n", @names) };
    my @old = map { ["app/x$_", 'x' x (4000 + $_ * 997 % 6000)] }
        grep { $_ > 0 } $n - 3, $n;
    eval { publish($s, @old, ['app/xlarge', 'x' x 60_000],
        map { ['app/xsmall', "small $_"] } 1 .. 10) };
}

sub kill_feeder ($s) {
    my $hub = first { $_->{name} eq 'app' } @{status($s)};
    my $pid = $hub && $hub->{feed}{worker} or return;
    $s->{killed} += kill KILL => $pid if grep { $_ == $pid }
        $s->{ngx}->workers;
}

# arms the file and goes on until all of @names have been died at
sub die_at ($s, $names, $load) {
    my ($ngx, $file) = $s->@{qw(ngx file)};
    $ngx->mark;
    $s->@{qw(killed asked)} = (0, []);
    my $how = $how{$names->[-1]};
    my $due = 0;
    RT::spew("$file.new", join "\n", @$names);
    rename "$file.new", $file or die "$file: $!\n";
    my $dead = $s->{storm}->until(sub {
        if ($how && time > $due) {
            $due = time + 1;
            $how->($s);
        }
        $load->($s);
        return !-e $file && $ngx->log(qr/exited on signal 9/)
            >= @$names + $s->{killed};
    }, 2, 'a worker comes there');
    unlink $file if !$dead;
    return $dead;
}

# channels that were asked for when somebody died are followed
sub served ($s) {
    my @left = splice $s->{asked}->@*;
    @left = @left[-4 .. -1] if @left > 4;
    push @left, 'calm/w' . ++$s->{n};
    my $n = $s->{n};
    $s->{storm}->until(sub {
        my @r = eval { ask($s, map { [GET => "/$_"] } @left) } or return 0;
        @left = map { $left[$_] } grep { $r[$_]->body ne "told $n" } 0 .. $#r;
        eval { publish($s, map { [$_, "told $n"] } @left) };
        return !@left;
    }, 2, 'channels asked for meanwhile are followed') or diag("not: @left");
}

# what the clients have seen since
sub seen ($s) {
    my %strict = (pubsub => qr/^$/, embedded => qr/^calm/, stream => qr/./);
    my %now = (all => $s->{storm}->verdict,
               strict => $s->{storm}->of($strict{$s->{source}})->verdict);
    my @sums = ('lost', 'back', 'bad');
    my @was = $s->{was} ? $s->{was}->@* : (0) x 4;
    $s->{was} = [$now{all}->@{@sums}, $now{strict}{gaps}];
    is_deeply([map { $s->{was}[$_] - $was[$_] } 0 .. 3], [0, 0, 0, 0],
        'none lost in silence, none twice, none damaged, no gap'
        . ($s->{source} eq 'stream' ? '' : ' where none may be'))
        or diag($s->{storm}->reasons);
}

sub round ($s, $names, $load = \&squeeze) {
    subtest join(', then ', @$names) => sub {
        die_at($s, $names, $load) or return;
        my $start = time;
        $s->{storm}->finish(2);
        push @{$s->{took}}, time - $start;
        served($s);
        seen($s);
    };
}

# Something that is told as a gap, once: a message too large, and entries that
# were trimmed unread.
sub told ($s, $what, $send) {
    my $channel = $what =~ s/\W+/_/gr;
    my $swarm = RT::Swarm->new($s->{ngx}, reconnect => 1, retry => 20);
    $swarm->open(("/app/$channel") x 6);
    my $n = 0;
    my $next = sub ($text) {
        $n++;
        my %has;
        RT::poll_until(sub {
            eval { publish($s, ["app/$channel", $n]) } if !$has{sent}
                || $s->{source} eq 'pubsub';
            $has{sent} = 1;
            $s->{storm}->_turn;
            $swarm->pump(0.01);
            return !grep { ($swarm->data($_)->[-1] // '') ne $n } 0 .. 5;
        }, 3) or fail("$what: $text");
    };
    $next->('before');
    my @gaps = map { scalar $swarm->gaps($_)->@* } 0 .. 5;
    my $sent;
    round($s, ['clear: floor'], sub ($s) {
        $send->($channel) if !$sent++;
        $swarm->pump(0.01);
    });
    $next->('after');
    my @told = map { $swarm->gaps($_)->@* - $gaps[$_] } 0 .. 5;
    if ($s->{source} eq 'stream') {
        is("@told", '1 1 1 1 1 1', "$what: each is told one gap");
        my $want = join ' ', 1, $what eq 'trimmed' ? 'left' : (), 2;
        is(scalar(grep { "@{$swarm->data($_)}" ne $want } 0 .. 5), 0,
            "$what: and what there is, once")
            or diag("@{$swarm->data(0)}");
    } else {
        is(scalar(grep { $_ < 1 } @told), 0, "$what: each is told a gap");
    }
    $swarm->close;
}

for my $source (@sources) {
    my $start = time;
    my $s = up($source);
    my @reached;
    for my $point (@points) {
        next if $point !~ /$only/;
        if (my $why = $never{$point}{$source}) {
            note("$source: not $point: $why");
            next;
        }
        if ($point eq 'clear: floor') {
            told($s, 'too large', sub ($channel) {
                publish($s, ["app/$channel", 'x' x 200_000]) });
            told($s, 'trimmed', sub ($channel) {
                $s->{redis}->pipeline(['MULTI'],
                    map({ [XADD => $channel, '*', data => $_] }
                        qw(lost lost left)),
                    [XTRIM => $channel, MAXLEN => 1], ['EXEC']);
            }) if $source eq 'stream';
            push @reached, $point;
            next;
        }
        push @reached, $point
            if round($s, [$first{$point} // (), $point]);
    }
    my $v = $s->{storm}->verdict;
    cmp_ok($v->{connects}, '>', $v->{clients}, "$source: clients were cut");
    my $memory = first { $_->{name} eq 'app' } @{status($s)};
    cmp_ok($memory->{evicted}, '>', 0, "$source: channels were evicted")
        if $only eq '';
    $s->{storm}->close;
    $s->{ngx}->stop;
    is(scalar RT::Asan::reports($s->{ngx}->dir), 0, "$source: no report");
    note(sprintf '%s: %d points in %.1f s, the next message after %.2f s at '
        . 'most, %.2f on average; %d sent, %d connects, gaps: %s', $source,
        scalar @reached, time - $start, max(@{$s->{took}}, 0),
        sum0(@{$s->{took}}) / (@{$s->{took}} || 1), $v->@{qw(sent connects)},
        $s->{storm}->reasons || 'none');
}

done_testing;
