# rt_stream_log: a line for each stream that has ended, with why; its forms,
# its inheritance, where it is written, and what if it can't be.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;
use RT::Wire;

need(qw(curl openssl));

my $certs = dir();
system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
    . "-keyout $certs/key -out $certs/cert 2>/dev/null") == 0
    or die "openssl\n";

my $locations = join '', map { my $detach = $_; <<"END" } qw(on off);
    location ~ ^/$detach/text/(?<channel>.+)\$ {
        rt_detach $detach; rt_stream_log %%DIR%%/logs/text.log text;
        rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/json/(?<channel>.+)\$ {
        rt_detach $detach; rt_stream_log %%DIR%%/logs/json.log json;
        rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/life/(?<channel>.+)\$ {
        rt_detach $detach; rt_lifetime 1200ms; rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/slow/(?<channel>.+)\$ {
        rt_detach $detach; rt_buffer 4k; rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/late/(?<channel>.+)\$ {
        rt_detach $detach; rt_buffer 8m; send_timeout 500ms;
        rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/open/(?<channel>.+)\$ {
        rt_detach $detach; rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/mute/(?<channel>.+)\$ {
        rt_detach $detach; rt_stream_log off; rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/full/(?<channel>.+)\$ {
        rt_detach $detach; rt_stream_log /dev/full; rt_subscribe mem \$channel;
    }
    location ~ ^/$detach/real/(?<channel>.+)\$ {
        rt_detach $detach; rt_subscribe mem \$channel;
        set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;
    }
    location ~ ^/$detach/nested/ {
        rt_stream_log logs/nested.log json;
        location ~ ^/$detach/nested/(?<channel>.+)\$ {
            rt_detach $detach; rt_subscribe mem \$channel;
        }
    }
END
my $http = <<'END';
    rt_hub mem { zone 16m; message_max 1m; history 300; }
    rt_drain 200ms;
    rt_heartbeat 10m;
    client_max_body_size 2m;
    rt_stream_log logs/all.log;
    log_format rt '$uri $rt_messages $bytes_sent $rt_close';
    access_log %%DIR%%/logs/rt.log rt;
    server {
        listen 127.0.0.1:%%PORT1%% ssl sndbuf=16k;
        ssl_certificate %%CERTS%%/cert; ssl_certificate_key %%CERTS%%/key;
        %%L%%
    }
    server { listen 127.0.0.1:%%PORT2%% sndbuf=16k; %%L%% }
    server { listen 127.0.0.1:%%PORT3%% http2; %%L%% }
    server { listen unix:%%DIR%%/sock; %%L%% }
END
$http =~ s/%%L%%/$locations/g;

my $ngx = RT::Nginx->new(workers => 1, vars => { CERTS => $certs },
    http => $http, server => $locations . <<'END',
    location = /publish { rt_publish mem $arg_channel; }
    location = /status { rt_status json; }
END
    allow => [qr{\[alert\].*write\(\) to "/dev/full" failed}]);
my $logs = $ngx->dir . '/logs';

sub publish ($channel, @data) {
    for my $data (@data) {
        my $r = post($ngx, "/publish?channel=$channel", $data);
        die 'publish: ' . $r->status if $r->status != 202;
    }
}

sub lines ($file) {
    my @lines = split /\n/, slurp("$logs/$file");
    return @lines;
}

# opened, with so many messages, closed; its line, which is one more
sub stream ($file, $path, $channel, $n, %opt) {
    my $was = lines($file);
    my $w = RT::Wire->new(delete $opt{target} // $ngx, $path, %opt);
    wait_for { $w->read(0.02);
        $w->body =~ /\Aretry: \d+\n\nid: .*\n(?:\n|data)/ } 5, 'a place';
    publish($channel, $_) for 1 .. $n;
    $w->wait(qr/data: $n\n\n/) if $n;
    $w->close;
    wait_for { lines($file) > $was } 5, "a line in $file";
    my @lines = lines($file);
    is(scalar @lines, $was + 1, "$path: one line");
    return ($lines[-1], $w);
}

my $date = qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d/;

for my $detach ('on', 'off') {
    subtest "rt_detach $detach: the forms" => sub {
        my ($line, $w) = stream('text.log', "/$detach/text/t$detach",
            "t$detach", 3);
        like($line,
            qr/^$date 127\.0\.0\.1 sse t$detach \d+\.\d{3} 3 \d+ client$/,
            'text');
        my ($bytes) = $line =~ / (\d+) client$/;
        is($bytes, length $w->bytes, 'all bytes, and the head');

        ($line, $w) = stream('json.log', "/$detach/json/j$detach",
            "j$detach", 2);
        my $json = eval { decode_json($line) };
        ok($json, 'json') or diag($line);
        like(delete $json->{time}, qr/^$date$/, 'time');
        like(delete $json->{seconds}, qr/^\d+(?:\.\d+)?$/, 'seconds');
        is_deeply($json, { client => '127.0.0.1', transport => 'sse',
            channels => ["j$detach"], messages => 2,
            bytes => length $w->bytes, close => 'client' }, 'the rest');
        like($line, qr/"seconds":\d+\.\d{3},/, 'with milliseconds');

        # several channels; names that have to be escaped
        my $names = "a$detach,b:$detach,d";
        ($line) = stream('text.log', "/$detach/text/$names", "b:$detach", 1);
        like($line, qr/ sse $names \S+ 1 \d+ client$/, 'channels');
        my $name = 'q"u\\o/' . "\xc3\xa9" . '{}';
        my $path = $name =~ s/([^\w\/])/sprintf '%%%02x', ord $1/ger;
        ($line) = stream('json.log', "/$detach/json/$path,x",
            $path =~ s{/}{%2f}gr, 1);
        $json = eval { decode_json($line) };
        ok($json, 'quotes') or diag($line);
        utf8::decode($name);
        is_deeply($json->{channels}, [$name, 'x'], 'the names');

        # HTTP/1.0, a Unix socket, realip
        ($line, $w) = stream('text.log', "/$detach/text/u$detach",
            "u$detach", 1, version => '1.0');
        like($line, qr/ 1 @{[length $w->bytes]} client$/, 'HTTP/1.0');
        ($line) = stream('text.log', "/$detach/text/v$detach", "v$detach", 1,
            target => 'unix:' . $ngx->dir . '/sock');
        like($line, qr/^$date unix: sse v$detach /, 'a Unix socket');
        ($line) = stream('all.log', "/$detach/real/r$detach", "r$detach", 1,
            headers => ['X-Real-IP' => '2001:db8::7']);
        like($line, qr/^$date 2001:db8::7 sse r$detach /, 'realip');

        # TLS: the bytes that it was given, not those of TLS
        ($line, $w) = stream('text.log', "/$detach/text/s$detach", "s$detach",
            5, tls => 1, port => 1);
        like($line, qr/ 5 @{[length $w->bytes]} client$/, 'TLS');

        # the second request of a connection
        my $was = lines('text.log');
        my $c = RT::HTTP->new($ngx);
        $c->send(GET => '/publish');
        $c->read;
        $c->send(GET => "/$detach/text/k$detach",
            headers => [Accept => 'text/event-stream']);
        my $size = 0;
        wait_for { eval { $c->_fill(time + 0.05) };
            $size = length $c->{in}; $c->{in} =~ /\nid: \S+\n\n\r\n\z/ } 5,
            'a place';
        $c->close;
        wait_for { lines('text.log') > $was } 5, 'a line';
        like((lines('text.log'))[-1], qr/ k$detach \S+ 0 $size client$/,
            'of the stream alone');
    };

    subtest "rt_detach $detach: where" => sub {
        my $was = lines('all.log');
        my ($line) = stream('all.log', "/$detach/open/o$detach", "o$detach", 1);
        like($line, qr/ sse o$detach /, 'inherited from http');
        ($line) = stream('nested.log', "/$detach/nested/n$detach",
            "n$detach", 1);
        is(eval { decode_json($line)->{channels}[0] }, "n$detach",
            'from a location, with its form; a relative path');
        my $w = RT::Wire->new($ngx, "/$detach/mute/m$detach");
        $w->wait(qr/\nid: /);
        $w->close;
        stream('all.log', "/$detach/open/p$detach", "p$detach", 0);
        is(scalar(lines('all.log')), $was + 2, 'off: none');
    };

    subtest "rt_detach $detach: why" => sub {
        my $last = sub ($ch) {
            my ($line) = grep { / sse \Q$ch\E / } lines('all.log');
            return $line // '';
        };
        my $ends = sub ($ch, $why, $more = qr/.*/) {
            local $Test::Builder::Level = $Test::Builder::Level + 1;
            wait_ok { $last->($ch) } 5, "$ch has ended";
            like($last->($ch), qr/ sse \Q$ch\E $more \d+ $why$/, $why);
        };
        # lifetime
        my $w = RT::Wire->new($ngx, "/$detach/life/l$detach");
        $w->wait(qr/\nid: /);
        publish("l$detach", 'x');
        $w->whole('rt_lifetime');
        $ends->("l$detach", 'lifetime', qr/1\.[0-9]{3} 1/);
        my ($bytes) = $last->("l$detach") =~ / (\d+) \w+$/;
        is($bytes, length($w->bytes) - ($detach eq 'on' ? 0 : 5),
            'the bytes, but for what nginx itself ends with');

        # slow, timeout
        for my $how (['slow', 'slow', 2], ['late', 'timeout', 2],
            ['slow', 'slow', 1], ['late', 'timeout', 1])
        {
            my ($kind, $why, $port) = @$how;
            my $ch = "$kind$port$detach";
            $w = RT::Wire->new($ngx, "/$detach/$kind/$ch", port => $port,
                rcvbuf => 4096, tls => $port == 1);
            $w->wait(qr/\nid: /);
            for (1 .. 40) {
                last if $last->($ch);
                publish($ch, 'x' x 100_000);
            }
            $ends->($ch, $why, qr/\d+\.\d{3} \d+/);
            $w->close;
        }

        # reset, half closed
        for my $how ('reset', 'half') {
            $w = RT::Wire->new($ngx, "/$detach/open/$how$detach");
            $w->wait(qr/\nid: /);
            $w->$how;
            $ends->("$how$detach", 'client');
        }

        # HTTP/2
        my $out = dir() . "/h2$detach";
        my $pid = RT::spawn([qw(curl -sN --http2-prior-knowledge -m 20 -H),
            'Accept: text/event-stream', 'http://127.0.0.1:' . $ngx->port(3)
            . "/$detach/open/h2$detach"], out => $out);
        wait_for { slurp($out) =~ /\nid: / } 5, 'HTTP/2';
        publish("h2$detach", 'x');
        wait_for { slurp($out) =~ /data: x/ } 5, 'a message';
        RT::kill_group($pid);
        $ends->("h2$detach", 'client', qr/\d+\.\d{3} 1/);
    };

    subtest "rt_detach $detach: a disk that is full" => sub {
        $ngx->mark;
        for (1 .. 20) {
            my $w = RT::Wire->new($ngx, "/$detach/full/f");
            $w->wait(qr/\nid: /);
            $w->close;
        }
        my $start = time;
        wait_ok { get($ngx, '/status')->body =~ /"open":0,/ } 5,
            'all have ended';
        my @told = $ngx->log(qr{\[alert\].*write\(\) to "/dev/full" failed});
        cmp_ok(scalar @told, '>=', 1, 'it is told');
        my %second = map { /^(\S+ \S+) / => 1 } @told;
        is(scalar @told, scalar keys %second, 'once a second');
        like($told[0] // '', qr/No space left/, 'with the error');
    };
}

subtest 'HTTP/2: bytes' => sub {
    my ($line) = grep { / h2on / } lines('all.log');
    my ($bytes) = $line =~ / (\d+) client$/;
    cmp_ok($bytes, '>', 20, "some: $bytes");
};

subtest 'the access log of attached streams' => sub {
    my ($line) = grep { m{^/off/text/toff } } lines('rt.log');
    my ($n, $bytes, $why) = $line =~ /^\S+ (\d+) (\d+) (\S+)$/;
    is("$n $why", '3 client', 'messages, and why');
    my ($same) = grep { / sse toff / } lines('text.log');
    like($same, qr/ 3 $bytes client$/, 'the same bytes');
    my ($tls) = grep { m{^/off/text/soff } } lines('rt.log');
    ($bytes) = $tls =~ /^\S+ \d+ (\d+) /;
    ($same) = grep { / sse soff / } lines('text.log');
    like($same, qr/ 5 $bytes client$/, 'TLS, too');
};

subtest 'USR1' => sub {
    my @w = map { my $w = RT::Wire->new($ngx, "/$_/text/usr1");
        $w->wait(qr/\nid: /); $w } qw(on off);
    rename "$logs/text.log", "$logs/text.old" or die "rename: $!\n";
    my $was = lines('text.old');
    $ngx->signal('USR1');
    wait_ok { -e "$logs/text.log" } 5, 'a new file';
    $ngx->wait_log(qr/reopening logs/);
    # the worker has it when it has said so in the other one, too
    wait_for { my ($line) = stream('all.log', '/on/open/z', 'z', 0);
        (grep { -s "$logs/$_" } 'all.log') } 5, 'the worker works';
    $_->close for @w;
    wait_ok { lines('text.log') + lines('text.old') == $was + 2 } 5,
        'two lines more';
    is(scalar(lines('text.log')), 2, 'in the new one');
};

subtest 'drain, and what is left at worker_shutdown_timeout' => sub {
    my @w = map { RT::Wire->new($ngx, "/$_/text/drain") } qw(on off);
    $_->wait(qr/\nid: /) for @w;
    $ngx->reload;
    $_->whole('a drain') for @w;
    wait_ok { 2 == grep { / sse drain .* drain$/ } lines('text.log') } 5,
        'both are told';

    my $late = RT::Nginx->new(workers => 1,
        main => 'worker_shutdown_timeout 300ms;',
        http => 'rt_hub mem { zone 8m; } rt_drain 1m;
            rt_stream_log %%DIR%%/logs/all.log;',
        server => 'location /on { rt_subscribe mem a; }
            location /off { rt_subscribe mem a; rt_detach off; }');
    @w = map { RT::Wire->new($late, "/$_") } qw(on off);
    $_->wait(qr/\nid: /) for @w;
    $late->quit;
    ok($_->ended, 'closed') for @w;
    my $file = $late->dir . '/logs/all.log';
    wait_ok { 2 == (() = slurp($file) =~ / drain$/mg) } 5, 'both are told';
    $late->{stopped} = 1;
    wait_ok { !RT::running($late->pid) } 5, 'it has ended';
    is(join("\n", grep { !/close/ } $late->_complaints), '', 'cleanly');
};

wait_ok { get($ngx, '/status')->body =~ /"open":0,/ } 5, 'nobody is left';

subtest 'what is refused' => sub {
    for my $case (['rt_stream_log off json;', qr/takes no format/],
        ['rt_stream_log x.log xml;', qr/"text" or "json"/],
        ['rt_stream_log off; rt_stream_log off;', qr/is duplicate/],
        ['rt_stream_log /no/such/directory/x;', qr/No such file/])
    {
        my ($text, $like) = @$case;
        my ($ok, $out) = nginx_t(http => 'rt_hub mem { zone 8m; }',
            server => "location / { rt_subscribe mem a; $text }");
        ok(!$ok, $text);
        like($out, $like, 'why');
    }
};

done_testing;
