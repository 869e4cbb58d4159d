# What clients get of streams that are sent directly, byte by byte: attached
# or detached, by TLS, without chunks, and as nginx's filters would send it.
# Clients that are slow, that stop, leave, or say too much.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time sleep);
use RT;
use RT::Wire;

need('openssl');

my $certs = dir();
system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
    . "-keyout $certs/key -out $certs/cert 2>/dev/null") == 0
    or die "openssl\n";

my %mode = (
    detached => '',
    attached => 'rt_detach off;',
    filters  => 'limit_rate 200m;',
    nochunk  => 'chunked_transfer_encoding off;',
);
my %kind = (
    plain   => '',
    ping    => 'rt_heartbeat 150ms; rt_buffer 32m;',
    life    => 'rt_lifetime 300ms;',
    small   => 'rt_buffer 8k;',
    close   => 'rt_buffer 4k;',
    latest  => 'rt_buffer 4k; rt_slow latest;',
    late    => 'send_timeout 1s; rt_buffer 32m;',
    rst     => 'send_timeout 1s; rt_buffer 32m; reset_timedout_connection on;',
    big     => 'rt_buffer 32m;',
    over    => 'rt_lifetime 1s; rt_buffer 32m;',
    overrst => 'rt_lifetime 500ms; rt_buffer 32m; send_timeout 1s;',
);
my $locations = join '', map { my $mode = $_; map { <<"END" } keys %kind }
    location ~ ^/$mode/$_/(?<channel>\\w+)\$ {
        $mode{$mode} $kind{$_} rt_subscribe mem \$channel;
    }
END
    keys %mode;

# small buffers: who does not read is slow at once
my $http = <<'END';
    rt_hub mem { zone 64m; history 500; message_max 1m; }
    rt_drain 300ms;
    keepalive_requests 1000000;
    rt_heartbeat 10m;
    sendfile off;
    client_max_body_size 2m;
    rt_stream_log %%DIR%%/logs/stream.log;
    server {
        listen 127.0.0.1:%%PORT1%% ssl sndbuf=16k;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate %%CERTS%%/cert; ssl_certificate_key %%CERTS%%/key;
        %%L%%
    }
    server { listen 127.0.0.1:%%PORT2%% sndbuf=16k; %%L%% }
END
$http =~ s/%%L%%/$locations/g;

my $ngx = RT::Nginx->new(workers => 1, vars => { CERTS => $certs },
    http => $http, server => <<'END');
    location = /publish { rt_publish mem $arg_channel; }
    location = /status { rt_status json; }
    location = /stub { stub_status; }
END
my $log = $ngx->dir . '/logs/stream.log';

my $poster = RT::HTTP->new($ngx);

sub publish ($channel, @data) {
    for my $data (@data) {
        $poster->send(POST => "/publish?channel=$channel", body => $data);
        my $r = $poster->read // do {
            $poster = RT::HTTP->new($ngx);
            redo;
        };
        die 'publish: ' . $r->status if $r->status != 202;
    }
}

sub streams {
    return decode_json(get($ngx, '/status')->body)
        ->{hubs}[0]{streams}{sse};
}

sub active {
    return get($ngx, '/stub')->body =~ /Active connections: (\d+)/ && $1;
}

# why streams of the channel ended
sub ends ($channel) {
    my @why = slurp($log) =~ / sse \Q$channel\E \S+ \d+ \d+ (\S+)$/mg;
    return @why;
}

sub ended ($channel, $why, $seconds = 5) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    wait_ok { (ends($channel))[0] } $seconds, "$channel has ended";
    is((ends($channel))[0], $why, "because of: $why");
}

# events of a body as [id, event, data]; one named "none" where it is none
sub events ($body) {
    my @events;
    $body =~ s/\Aretry: \d+\n\n//
        or return [undef, 'none', ''];
    my $one = qr/(?:id: (\S+)\n)?(?:event: (\S+)\n)?((?:data: .*\n)*)\n/;
    while ($body =~ /\G$one/gc) {
        my ($id, $event, $data) = ($1, $2, $3);
        next if $data eq '';
        chop $data;
        push @events, [$id, $event, $data =~ s/^data: //gmr];
    }
    $body =~ /\G(:\n\n|retry: \d+\n\n)*/gc;
    my $at = pos $body;
    push @events, [undef, 'none', substr $body, $at // 0, 80]
        if ($at // 0) < length $body;
    return @events;
}

our $factor = 1;

# the text of a message, longer where buffers are; a kernel takes no less than
# 64k of one, so some are longer than that
sub text ($i) {
    my $n = $i * 97 % 1500 * $factor;
    $n = 200_000 if $factor >= 20 && $i % 25 == 7;
    return sprintf('%05d', $i) . '.' x $n;
}

sub number ($event) {
    return -3 if ($event->[1] // '') eq 'none';
    my ($n) = $event->[2] =~ /\A(\d{5})/ or return -1;
    return $event->[2] eq text($n) ? $n + 0 : -2;
}

my $n = 0;

# those that a client is slow for
sub port (%opt) { return (port => $opt{tls} ? 1 : 2) }

sub open_stream ($mode, $kind, $channel, %opt) {
    my $w = RT::Wire->new($ngx, "/$mode/$kind/$channel", port(%opt), %opt);
    wait_for { $w->read(0.02); $w->body =~ /\Aretry: \d+\n\nid: \S+\n\n/ } 5,
        'a place';
    return $w;
}

sub last_is ($w, $i) {
    return sub { substr($w->body, -40000) =~ /\Q@{[text($i)]}\E\n\n\z/ };
}

sub all_of ($mode, $title, %opt) {
    my $tag = $title =~ s/\W//gr;
    $factor = $opt{tls} ? 20 : 1;
    my $direct = $mode ne 'filters';

    subtest "$title: messages, pings, a resume, the end" => sub {
        my $ch = "a$tag";
        my $w = open_stream($mode, 'ping', $ch, %opt);
        my $big = join "\n", map { "$_ " . 'x' x 2000 } 1 .. 300;
        publish($ch => 'one', $big, '', "two\r\nlines");
        ok($w->wait(qr/data: two\ndata: lines\n\n/), 'messages');
        my @got = events($w->framed && $w->body =~ s/:\n\n//gr);
        is(join(' ', map { length $_->[2] } @got), '3 ' . length($big)
            . ' 0 9', 'their lengths');
        ok($got[1] && $got[1][2] eq $big && $got[3][2] eq "two\nlines",
            'as they were sent');
        my $pings = () = $w->body =~ /^:\n\n/mg;
        ok($w->wait(sub { (() = $w->body =~ /^:\n\n/mg) >= $pings + 3 }),
            'pings');
        $w->framed;
        is(scalar(grep { !/\n\n\z/ } $w->chunks), 0,
            'no event is in two chunks') if $direct;
        $w->close;
        ended($ch, 'client');

        # many messages, in portions that fit
        $ch = "r$tag";
        $w = open_stream($mode, 'plain', $ch, %opt);
        publish($ch => text(0));
        ok($w->wait(last_is($w, 0)), 'a first message');
        my $id = (events($w->body))[-1][0];
        $w->close;
        publish($ch => map { text($_) } 1 .. 150);
        $w = RT::Wire->new($ngx, "/$mode/small/$ch", port(%opt), %opt,
            last => $id);
        ok($w->wait(last_is($w, 150), 10), 'resumed');
        publish($ch => text(151));
        ok($w->wait(last_is($w, 151)), 'and live');
        $w->framed;
        is(join(' ', map { number($_) } events($w->body)),
            join(' ', 1 .. 151), 'all of them, in order');
        $w->close;

        # a gap
        $w = RT::Wire->new($ngx, "/$mode/plain/$ch", port(%opt), %opt,
            last => 'what.is-this');
        ok($w->wait(last_is($w, 151)), 'an unknown cursor');
        is((events($w->body))[0][1], 'rt.gap', 'is a gap');
        $w->framed;
        $w->close;

        # the end
        $ch = "l$tag";
        my @w = map { open_stream($mode, 'life', $ch, %opt) } 1 .. 3;
        publish($ch => 'x');
        for my $w (@w) {
            my $body = $w->whole('rt_lifetime');
            like($body, qr/\n\n\z/, 'after an event');
        }
        wait_ok { ends($ch) == 3 } 5, 'all have ended';
        is(join(' ', ends($ch)), 'lifetime lifetime lifetime', 'for that');
    };

    subtest "$title: rt_slow close" => sub {
        # long ones: they are cut anywhere
        local $factor = 20;
        my $ch = "c$tag";
        my $w = open_stream($mode, 'close', $ch, %opt, rcvbuf => 4096);
        my $i = 0;
        while (!ends($ch) && $i < 3000) { publish($ch => text($i++)) }
        ended($ch, 'slow');
        isnt($w->ended, '', 'closed');
        $w->framed;
        ok(!$w->{last}, 'without a last chunk');
        my @got = events($w->body =~ s/(.*\n\n|\A).*\z/$1/sr);
        ok(@got < $i, 'not all came: ' . @got);
        is(join(' ', map { number($_) } @got), join(' ', 0 .. $#got),
            'those in order');
        my ($body, $cut) = $w->cut;
        ok($w->{chunked} ? length $cut : $body !~ /\n\n\z/,
            'one is cut') if !$opt{tls} && $direct;
        $w->close;
        is(streams()->{open}, 0, 'nobody is left');
    };

    subtest "$title: rt_slow latest" => sub {
        local $factor = 20;
        my $ch = "n$tag";
        my $w = open_stream($mode, 'latest', $ch, %opt, rcvbuf => 4096);
        my $end = 400;
        publish($ch => map { text($_) } 0 .. $end);
        ok($w->wait(last_is($w, $end), 20), 'the newest message');
        publish($ch => text($end + 1));
        ok($w->wait(last_is($w, $end + 1)), 'then what comes');
        $w->framed;
        my @got = events($w->body);
        my @gaps = grep { ($_->[1] // '') eq 'rt.gap' } @got;
        my @numbers = map { number($_) } grep { !defined $_->[1] } @got;
        cmp_ok(scalar @gaps, '>', 0, 'gaps are told: ' . @gaps);
        cmp_ok(scalar @numbers, '<', $end, 'some are left out: ' . @numbers);
        is(scalar(grep { $_ < 0 } @numbers), 0, 'each is whole');
        is_deeply(\@numbers, [sort { $a <=> $b } @numbers], 'in order');
        my ($last, $untold) = (-1, 0);
        for my $event (@got) {
            if (defined $event->[1]) { $last = undef; next }
            my $i = number($event);
            $untold++ if defined $last && $i != $last + 1;
            $last = $i;
        }
        is($untold, 0, 'nothing is missing but behind a gap');
        is(scalar(grep { !/\n\n\z/ } $w->chunks), 0,
            'no event is in two chunks') if $direct;
        $w->close;
        ended($ch, 'client');
    };

    subtest "$title: send_timeout" => sub {
        for my $kind (qw(late rst)) {
            my $ch = "$kind$tag";
            my $w = open_stream($mode, $kind, $ch, %opt, rcvbuf => 4096);
            my $start = time;
            publish($ch => map { text($_) } 0 .. 400);
            ended($ch, 'timeout', 6);
            my $took = time - $start;
            ok($took > 0.9 && $took < RT::scale(4),
                sprintf 'after a second: %.1f', $took);
            my $end = $w->ended;
            is($end, $kind eq 'rst' ? 'reset' : 'eof', 'closed') if !$opt{tls};
            $w->framed;
            ok(!$w->{last}, 'without a last chunk');
            my @got = events($w->body =~ s/(.*\n\n|\A).*\z/$1/sr);
            is(join(' ', map { number($_) } @got), join(' ', 0 .. $#got),
                'what came is in order');
            $w->close;
        }

        # slow, but alive: never for so long that nothing is taken
        local $factor = 20;
        my $ch = "p$tag";
        my $w = open_stream($mode, 'late', $ch, %opt, rcvbuf => 32768);
        for my $i (0 .. 400) {
            publish($ch => text($i));
            $w->read(0) if $i % 10 == 0;
        }
        my $end = time + 3;
        while (time < $end && !$w->{end}) {
            $w->read(0.02);
            sleep 0.02;
        }
        is(scalar ends($ch), 0, 'who takes something all the time lives');
        ok($w->wait(last_is($w, 400), 20), 'and gets all');
        $w->framed;
        is(join(' ', map { number($_) } events($w->body)),
            join(' ', 0 .. 400), 'in order');
        $w->close;
    };

    subtest "$title: an end behind what is queued" => sub {
        my $ch = "o$tag";
        my $w = open_stream($mode, 'over', $ch, %opt, rcvbuf => 4096);
        publish($ch => map { text($_) } 0 .. 300);
        wait_for { ends($ch) } 5, 'its time is over';
        publish($ch => 'nothing of this');
        my $body = $w->whole('then it reads');
        is(join(' ', map { number($_) } events($body)), join(' ', 0 .. 300),
            'all that was queued');
        is((ends($ch))[0], 'lifetime', 'why');
        $w->close;

        # and one that does not read it
        $ch = "q$tag";
        my $before = active();
        $w = open_stream($mode, 'overrst', $ch, %opt, rcvbuf => 4096);
        publish($ch => map { text($_) } 0 .. 300);
        wait_for { ends($ch) } 5, 'its time is over';
        my $start = time;
        wait_ok { active() <= $before } 5, 'send_timeout ends it';
        cmp_ok(time - $start, '>', 0.5, 'not at once');
        isnt($w->ended, '', 'closed');
        $w->framed;
        ok(!$w->{last}, 'without a last chunk');
        $w->close;
    };

    subtest "$title: clients that leave" => sub {
        my $good = open_stream($mode, 'big', "k$tag", %opt);
        my @how = $opt{tls} ? qw(close) : qw(close reset half);
        for my $how (@how) {
            my $ch = "$how$tag";
            my $w = open_stream($mode, 'plain', $ch, %opt);
            publish($ch => 'x');
            $w->wait(qr/data: x\n\n/);
            $w->$how;
            ended($ch, 'client');
            is($w->ended, 'eof', 'closed') if $how eq 'half';
        }

        # in the middle of a message that is far too long for its buffers
        for my $how (@how) {
            my $ch = "m$how$tag";
            my $w = open_stream($mode, 'big', $ch, %opt, rcvbuf => 4096);
            publish($ch => 'y' x 1_000_000) for 1 .. ($factor > 1 ? 5 : 1);
            $w->wait(qr/data: y/);
            $w->$how;
            # FIN alone is not told to who has no room to answer
            publish($ch => 'z');
            ended($ch, 'client') if $how ne 'close';
            wait_ok { (ends($ch))[0] } 5, 'ended';
            $w->close if $how eq 'half';
        }
        publish("k$tag" => text(8));
        ok($good->wait(last_is($good, 8)), 'others go on');
        $good->framed;
        $good->close;
        wait_ok { streams()->{open} == 0 } 5, 'all have left';
    };

    subtest "$title: one that says too much" => sub {
        my $w = open_stream($mode, 'plain', "f$tag", %opt);
        my $other = open_stream($mode, 'plain', "g$tag", %opt);
        my ($pid) = $ngx->workers;
        my $before = $ngx->rss($pid);
        my ($worst, $sent) = (0, 0);
        my $end = time + 1;
        for (my $i = 0; time < $end; $i++) {
            my $n = syswrite $w->{sock}, "\r\nGET / HTTP/1.1\r\n\r\n" x 5000;
            $sent += $n // 0;
            next if $i % 20;
            my $start = time;
            publish("g$tag" => text($i));
            $other->wait(last_is($other, $i)) or last;
            $worst = time - $start if time - $start > $worst;
        }
        cmp_ok($sent, '>', 1_000_000, "$sent bytes were taken");
        cmp_ok($worst, '<', RT::scale(1),
            sprintf 'the other one waits for %.3f s', $worst);
        cmp_ok($ngx->rss($pid) - $before, '<', 2000, 'nothing is kept')
            if !asan();
        publish("f$tag" => text(1));
        ok($w->wait(last_is($w, 1)), 'its own messages come');
        is(join(' ', map { number($_) } events($w->body)), 1, 'those alone');
        $_->framed, $_->close for $w, $other;
        wait_ok { ends("f$tag") && ends("g$tag") } 5, 'they leave';
    };
}

my @modes = (
    [detached => 'detached'],
    [filters => 'by filters'],
    [detached => 'HTTP/1.0', version => '1.0'],
    [detached => 'TLS', tls => 1],
    # what differs from those above in little: RT_SLOW=1
    $ENV{RT_SLOW} ? (
        [attached => 'attached'],
        [nochunk => 'without chunks'],
        [attached => 'TLS, attached', tls => 1]) : (),
);
my $only = $ENV{RT_MODE};
all_of(@$_) for grep { !$only || $_->[1] =~ /^(?:$only)$/ } @modes;

# those who are served in one turn, each in its own way

subtest 'many of one channel' => sub {
    local $factor = 20;
    my $end = 120;
    my @good = map { open_stream($_->[0], 'big', 'many', %{$_->[1]}) }
        (([detached => {}]) x 20, ([attached => {}]) x 4,
         ([filters => {}]) x 2, ([nochunk => {}]) x 2,
         ([detached => { version => '1.0' }]) x 2,
         ([detached => { tls => 1 }]) x 2);
    my @lazy = map { open_stream('detached', $_, 'many', rcvbuf => 4096) }
        (qw(latest close big)) x 4;
    my @gone = map { open_stream('detached', 'big', 'many', rcvbuf => 4096) }
        1 .. 6;
    for my $i (0 .. $end) {
        publish(many => text($i));
        $_->read(0) for @good;
        if ($i % 20 == 7) {
            my $w = shift @gone // next;
            $i % 40 == 7 ? $w->reset : $w->close;
        }
    }
    my $want = join ' ', 0 .. $end;
    my $bad = 0;
    for my $w (@good) {
        $w->wait(last_is($w, $end), 20);
        $w->body;
        $bad++ if $w->{bad}
            || join(' ', map { number($_) } events($w->body)) ne $want;
        $w->close;
    }
    is($bad, 0, 'all of those that read have got all');
    while (my ($latest, $close, $big) = splice @lazy, 0, 3) {
        ok($latest->wait(last_is($latest, $end), 20), 'rt_slow latest');
        $latest->framed;
        is(scalar(grep { ($_->[1] // '') ne 'rt.gap' && number($_) < 0 }
            events($latest->body)), 0, 'each is whole');
        isnt($close->ended, '', 'rt_slow close');
        ok($big->wait(last_is($big, $end), 20), 'rt_buffer that is large');
        $big->framed;
        is(join(' ', map { number($_) } events($big->body)), $want, 'has all');
        $_->close for $latest, $close, $big;
    }
    $_->close for @gone;
    wait_ok { streams()->{open} == 0 } 5, 'all have left';
};

subtest 'TLS: close_notify' => sub {
    for my $version ('-tls1_2', '-tls1_3') {
        my @tls = (tls => 1, port => 1, trace => 1, tls_args => [$version]);
        my $w = RT::Wire->new($ngx, '/detached/life/tls', @tls);
        $w->whole("$version, rt_lifetime");
        like($w->trace, qr/^<<< TLS[^\n]*Alert[^\n]*close_notify/m,
            'and TLS says so');
    }
};

subtest 'a drain' => sub {
    my %w = map { my ($mode, $title, %opt) = @$_;
        $factor = $opt{tls} ? 20 : 1;
        $title => open_stream($mode, 'plain', 'drain', %opt) } @modes;
    publish(drain => 'last');
    $ngx->reload;
    for my $title (sort keys %w) {
        like($w{$title}->whole($title),
            qr/data: last\n\nretry: \d+\n\n\z/, 'its last line is a retry');
    }
    wait_ok { ends('drain') == @modes } 5, 'all are logged';
    is(scalar(grep { $_ ne 'drain' } ends('drain')), 0, 'for that');
    wait_ok { !$ngx->old_workers } 5, 'the old worker is gone';
};

wait_ok { streams()->{open} == 0 } 5, 'nobody is left';

done_testing;
