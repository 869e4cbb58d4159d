# The ring of sends in a real nginx: each worker makes its own and closes it,
# with a master and without, and where io_uring is forbidden, as in most
# containers, all goes on without it.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use RT;

my $hub = 'rt_hub app { }';
my $server = <<'END';
    rt_drain 300ms;
    location = /publish { rt_publish app $arg_channel; }
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel; }
END
my $refused = qr/io_uring is not available, using send\(\)/;

sub rings ($pid) {
    return scalar grep { (readlink // '') eq 'anon_inode:[io_uring]' }
        glob "/proc/$pid/fd/*";
}

# twenty streams of a channel that is new get what is published
sub delivers ($ngx, $name) {
    my $channel = $name =~ s/\W/_/gr;
    my @sse = map { RT::SSE->new($ngx, "/rt/$channel") } 1 .. 20;
    for my $text (map { "$name $_" } 1 .. 3) {
        is(post($ngx, "/publish?channel=$channel", $text)->status, 202, $text);
        is(scalar(grep { (($_->event // {})->{data} // '') eq $text } @sse),
            20, 'is with all');
    }
    $_->close for @sse;
}

my $ngx = RT::Nginx->new(workers => 2, http => $hub, server => $server);
my @workers = $ngx->workers;
my $ring = rings($workers[0]);
my ($why) = $ngx->log($refused);

my $built = slurp(root() . '/build/' . (asan() ? 'asan' : 'module')
    . '/ngx_auto_config.h') =~ /NGX_RT_IO_URING/;

# before anything is skipped
is($ring || defined $why ? 1 : 0, $built ? 1 : 0, 'a ring, or a reason');
delivers($ngx, 'as it is');

SKIP: {
    skip $why ? "refused: $why" : 'built without io_uring', 1 if !$ring;

    subtest 'each worker has its own' => sub {
        is(join(' ', map { rings($_) } @workers), '1 1', 'one each');
        is(rings($ngx->pid), 0, 'and the master none');
        is($why, undef, 'nothing is said of it');
    };

    subtest 'a reload' => sub {
        my $held = RT::SSE->new($ngx, '/rt/held');
        for my $round (1 .. 3) {
            ok($ngx->reload, 'reloaded');
            wait_ok { !$ngx->old_workers } 10, 'the old ones end';
            is(join(' ', map { rings($_) } $ngx->workers), '1 1',
                'the new ones have one each');
            is(rings($ngx->pid), 0, 'the master none');
        }
        delivers($ngx, 'reloaded');
    };

    subtest 'nothing to send, no ring' => sub {
        my $none = RT::Nginx->new(server => '');
        is(join(' ', map { rings($_) } $none->workers), '0', 'none');
        is($none->stop, 1, 'ends');
    };

    subtest 'without a master' => sub {
        my $single = RT::Nginx->new(workers => 0, main =>
            'master_process off;', http => $hub, server => $server);
        wait_ok { rings($single->pid) == 1 } 5, 'it has one';
        delivers($single, 'single');
        is($single->stop, 1, 'ends');
    };

    # io_uring_setup() fails as it does in a container
    my %prctl = (x86_64 => 157, aarch64 => 167);
    my $prctl = $prctl{(POSIX::uname())[4]};

    subtest 'forbidden' => sub {
        plan(skip_all => 'seccomp: not on this machine') if !$prctl;
        my $launcher = dir() . '/nginx';
        RT::spew($launcher, <<"END");
#!$^X
my \$filter = pack '(S C C L)*', 0x20, 0, 0, 0, 0x15, 0, 1, 425,
    0x06, 0, 0, 0x00050001, 0x06, 0, 0, 0x7fff0000;
my \$prog = pack 'S x6 P', 4, \$filter;
syscall($prctl, 38, 1, 0, 0, 0) == 0 && syscall($prctl, 22, 2, \$prog) == 0
    or die "prctl: \$!\\n";
exec '@{[RT::Nginx::binary()]}', \@ARGV;
END
        chmod 0755, $launcher;
        local $ENV{RT_NGINX} = $launcher;
        my $without = RT::Nginx->new(workers => 2, http => $hub,
            server => $server);
        is(join(' ', map { rings($_) } $without->workers), '0 0', 'no ring');
        my @lines = $without->log($refused);
        is(scalar @lines, 2, 'told by each worker, once');
        like($lines[0], qr/\[info\].*\(1: Operation not permitted\)/,
            'at a level that is seldom logged, with the reason');
        delivers($without, 'forbidden');
        ok($without->reload, 'reloaded');
        delivers($without, 'forbidden, reloaded');
        is($without->stop, 1, 'ends');
    };
}

done_testing;
