package Part::Connects;

# Connections opened, asked, answered and cut.

use v5.36;
use Bench;
use Report;
use RT;
use Servers;

our %sizes = (
    full => { connects => 10_000 }, quick => { connects => 1000 },
    smoke => { connects => 50 },
);

sub seconds ($size, $rounds) {
    return $rounds * 7 * $size->{connects} / 12_000 + 2;
}

sub run ($size, $rounds, %) {
    my $bare = Bench::bare();
    my $ngx = Servers::ours();
    my @peers = Servers::peers('k', 'Nchan', 'Nchan by Redis', 'Node');
    my @sse = (accept => 'text/event-stream');
    get($ngx, '/sse/k1');
    Servers::channels_live('k1', 1);
    $Bench::redis->publish(k1 => 'x' x 200);
    my $etag = RT::wait_for { get($ngx, '/sse/k1')->status == 200
        && get($ngx, '/sse/k1')->header('ETag') } 5, 'an ETag';
    my $cursor = $etag =~ s/^W\/|"//gr;

    my $pid = Servers::worker($ngx);
    my @ours = ($ngx->port, $pid, @sse, until => 'retry:');
    my %ask = (
        nginx  => [$ngx->port, $pid, path => '/small'],
        plain  => [@ours, path => '/sse/k1'],
        cursor => [@ours, path => "/sse/k1?last_event_id=$cursor"],
        bare   => [$bare->{port}, $bare->{pid}, @sse, path => '/sse/k1',
                   until => 'retry:'],
        map { ($_->{name} => [$_->{port}, $_->{pid}, @sse,
            path => $_->{load}{path} =~ s/%u/1/r]) } @peers,
    );
    my (%subs, @kept);
    for my $name (keys %ask) {
        my ($port, $pid, @args) = @{$ask{$name}};
        # one stays, so that the channel does
        push @kept, Bench::Load->new(connect => port => $port, keep => 1,
                                     @args);
        my $load = Bench::Load->new(connect => port => $port, @args);
        $subs{$name} = sub { scalar Bench::cost($pid, $load, 0,
                                                $size->{connects}) };
    }
    my %v = Bench::rounds($rounds, Bench::told('connects'), %subs);
    for (['plain', 'without cursor'], ['cursor', 'with cursor']) {
        my ($name, $label) = @$_;
        Report::row(part => 'connects', unit => 'us per connection',
            label => "SSE $label", target => 1.05, floor => 'keep-alive',
            values => { ngx_rt => $v{$name}, 'keep-alive' => $v{nginx},
                map { ($_ => $v{$_}) } 'bare', map { $_->{name} } @peers });
    }
    $_->close for @kept;
    Bench::end($bare);
    $ngx->stop;
    $_->{stop}->() for @peers;
}

1;
